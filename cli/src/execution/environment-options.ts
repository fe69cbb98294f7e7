import { create } from '@bufbuild/protobuf';
import { type Environment, EnvironmentSchema } from '@harrier/shared/gen/module';
import { requirementLines } from '@harrier/shared/modules-file';
import type { Command } from 'commander';
import { CliError } from '../failure.ts';
import { readText } from './request-options.ts';

/** Flags that say what code runs in, where there is no modules file to say it. */
export interface EnvironmentFlags {
  requirement?: string[];
  requirements?: string;
  python?: string;
  image?: string;
}

const repeated = (value: string, before: string[] = []) => [...before, value];

export function addEnvironmentOptions(command: Command): Command {
  return command
    .option('-r, --requirement <requirement>', 'package to install, for example "numpy>=2"; can be repeated', repeated)
    .option('--requirements <file>', 'requirements.txt with the packages to install')
    .option('--python <version>', 'Python of the packages, for example 3.12 or ">=3.10"')
    .option('--image <reference>', 'container image to run in');
}

/**
 * What the flags ask for; undefined: nothing, so that the default stands.
 * @throws CliError when they do not fit, or the file cannot be read
 */
export async function environmentOf(flags: EnvironmentFlags): Promise<Environment | undefined> {
  const wantsPackages = flags.requirement !== undefined || flags.requirements !== undefined;
  if (flags.image !== undefined) {
    if (wantsPackages || flags.python !== undefined) {
      throw new CliError('--image has its own packages: it goes with neither --requirement(s) nor --python');
    }
    return create(EnvironmentSchema, { kind: { case: 'docker', value: { image: flags.image } } });
  }
  if (!wantsPackages && flags.python === undefined) return undefined;
  const listed = flags.requirements === undefined ? [] : requirementLines(await readText(flags.requirements));
  const requirements = [...listed, ...(flags.requirement ?? [])];
  return create(EnvironmentSchema, {
    kind: { case: 'venv', value: { requirements, python: flags.python ?? '' } },
  });
}
