import type { Assignment } from '@harrier/shared/gen/link';
import { LABEL } from '../docker/container-list.ts';
import type { ContainerSpec } from '../docker/container-policy.ts';
import type { HeldImage } from '../docker/images.ts';
import { BOOT } from '../environment/manifest.ts';
import type { ProgramInContainer } from './container-program.ts';
import type { AttemptFacts } from './docker-attempt.ts';
import type { AttemptKey } from './executor.ts';
import { aboutOf } from './log-facts.ts';
import { durationMs, maxDisconnectMs } from './start-message.ts';

/** Processes and threads of a container whose assignment does not say. */
const DEFAULT_PROCESSES = 512;
/** What the engine keeps beyond the streams' limits: each line takes some bytes more. */
const LOG_SLACK_BYTES = 16 * 1024 * 1024;

/** What must be kept of an attempt. */
export function factsOf(
  key: AttemptKey,
  assignment: Assignment,
  { kind, entrypoint }: ProgramInContainer,
  preludeBytes: number,
): AttemptFacts {
  const { limits } = assignment;
  const stdoutBytes = Number(limits?.stdoutBytes ?? 0);
  // The preparation does not count against the limit.
  const stderrBytes = Number(limits?.stderrBytes ?? 0) + preludeBytes;
  const outputBytes = Number(limits?.outputBytes ?? 0);
  return {
    ...key,
    ...aboutOf(assignment),
    bootId: BOOT,
    program: kind,
    file: entrypoint?.[0] ?? '',
    timeoutMs: Math.ceil(durationMs(assignment.timeout)),
    maxDisconnectMs: maxDisconnectMs(assignment),
    ...(assignment.gpuUuids.length === 0 ? {} : { gpuUuids: assignment.gpuUuids }),
    memoryBytes: Number(limits?.memoryBytes ?? 0),
    outputBytes,
    stdoutBytes,
    stderrBytes,
    logBytes: stderrBytes + (kind === 'command' ? stdoutBytes : outputBytes) + LOG_SLACK_BYTES,
  };
}

/**
 * What its container is to be.
 * @param agent what containers of one agent are told apart by
 */
export function specOf(
  agent: string,
  facts: AttemptFacts,
  { command, entrypoint, mounts }: ProgramInContainer,
  { limits, env, tenant }: Assignment,
  image: HeldImage,
): ContainerSpec {
  return {
    imageId: image.id,
    command,
    ...(entrypoint === undefined ? {} : { entrypoint }),
    env,
    labels: {
      [LABEL.agent]: agent,
      [LABEL.role]: 'run',
      [LABEL.execution]: facts.executionId,
      [LABEL.attempt]: String(facts.attempt),
      [LABEL.tenant]: tenant,
    },
    limits: {
      memoryBytes: facts.memoryBytes,
      cpu: limits?.cpu ?? 0,
      processes: limits?.processes || DEFAULT_PROCESSES,
      tmpBytes: Number(limits?.tmpBytes ?? 0),
      logBytes: facts.logBytes,
    },
    volumes: image.volumes,
    mounts,
    profile: 'call',
    stdin: true,
    gpuUuids: facts.gpuUuids ?? [],
  };
}
