import { fileURLToPath } from 'node:url';
import type { Assignment } from '@harrier/shared/gen/link';
import type { ReadOnlyMount } from '../docker/container-policy.ts';
import { requestDocument } from '../docker/container-protocol.ts';
import type { PullRule } from '../docker/images.ts';
import { pullRule } from '../environment/docker-environment.ts';
import type { ContainerProgram } from './container-outcome.ts';

/** What a container is to run, as its assignment says. */
export interface ProgramInContainer {
  kind: ContainerProgram;
  image: string;
  pull: PullRule;
  command: readonly string[];
  entrypoint: readonly string[] | undefined;
  stdin: Uint8Array;
  mounts: readonly ReadOnlyMount[];
}

/** How source text of a language is run: a program of Harrier's, mounted into any image that has the language. */
export interface ScriptRunner {
  /** Directory on this host. */
  directory: string;
  /** Where it is seen in the container. */
  target: string;
  entrypoint: readonly string[];
}

/** Runners of this installation; Python has a warm interpreter instead. */
export const SCRIPT_RUNNERS: Readonly<Record<string, ScriptRunner>> = {
  nodejs: scriptRunner('nodejs', 'node', 'runner.mjs'),
  go: scriptRunner('go', 'go', 'run', 'runner.go'),
};

function scriptRunner(language: string, ...command: string[]): ScriptRunner {
  const target = '/harrier-runner';
  const file = command.pop() ?? '';
  return {
    directory: fileURLToPath(new URL(`../../../deploy/runners/${language}`, import.meta.url)),
    target,
    entrypoint: [...command, `${target}/${file}`],
  };
}

/**
 * @param runners by language
 * @returns undefined when the assignment is none for a container of its own, or in a language without a runner
 */
export function programInContainer(
  { program, environment, inputJson, inputSchemaJson, outputSchemaJson }: Assignment,
  runners: Readonly<Record<string, ScriptRunner>>,
): ProgramInContainer | undefined {
  const docker = environment?.kind.case === 'docker' ? environment.kind.value : undefined;
  const common = { image: docker?.image ?? '', pull: pullRule(docker?.pull), mounts: [], entrypoint: undefined };
  const request = { schemaIn: inputSchemaJson, schemaOut: outputSchemaJson, input: inputJson };
  switch (program.case) {
    case 'image': {
      const { image, argv, pull } = program.value;
      // The environment is the image with its lock, once there is one.
      const from = docker === undefined ? { image, pull: pullRule(pull) } : {};
      const stdin = requestDocument({ ...request, module: undefined });
      return { ...common, ...from, kind: 'protocol', command: argv, stdin };
    }
    case 'script': {
      const { language, source, handler, filename } = program.value;
      const runner = runners[language];
      if (runner === undefined) return undefined;
      const { directory, target, entrypoint } = runner;
      const stdin = requestDocument({ ...request, module: { source, handler, filename } });
      return { ...common, kind: 'protocol', command: [], entrypoint, stdin, mounts: [{ source: directory, target }] };
    }
    case 'command': {
      const [file = '', ...args] = program.value.argv;
      return { ...common, kind: 'command', entrypoint: [file], command: args, stdin: inputJson };
    }
    default:
      return undefined;
  }
}
