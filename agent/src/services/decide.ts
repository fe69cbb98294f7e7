import { type BackoffOptions, fullJitterMs } from '@harrier/shared';
import { definitionHash, type ServiceDefinition } from './service-definition.ts';

/** A container of a service as the engine tells it. */
export interface ContainerView {
  readonly id: string;
  /** Hash of the definition that it was made from. */
  readonly hash: string;
  /** `busy`: paused by somebody, or being removed; it is left alone until that is over. */
  readonly status: 'created' | 'running' | 'ended' | 'busy';
  readonly exitCode: number;
  /** Of its last run, in milliseconds since 1970 by the engine's clock. */
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly health: Health;
}

export type Health = 'none' | 'starting' | 'healthy' | 'unhealthy';

/** What is remembered of a service's failures, to wait longer after each. */
export interface RestartMemory {
  readonly failures: number;
  /** Nothing is started before, in milliseconds of the agent's clock. */
  readonly retryAtMs: number;
  /** The end that was counted last. */
  readonly countedEnd: string;
}

export type RemoveReason = 'unwanted' | 'changed' | 'superfluous' | 'unhealthy';

/** What is to be done next; after it everything is looked at again. */
export type Step =
  | { kind: 'remove'; id: string; reason: RemoveReason }
  | { kind: 'create' }
  | { kind: 'start'; id: string }
  | { kind: 'wait'; untilMs: number }
  | { kind: 'rest' };

export const FRESH: RestartMemory = { failures: 0, retryAtMs: 0, countedEnd: '' };

/** The bounds of Docker's and Kubernetes' own: a service that fails at once is tried about once a minute in the end. */
export const BACKOFF: BackoffOptions = { initialMs: 500, maxMs: 60_000, multiplier: 2 };
/** After a run of this length an end is as good as the first one. */
const STABLE_MS = 60_000;

/**
 * Decides what brings a service one step nearer to what the file says. A pure function of what is wanted and what is there,
 * so that an agent that was started again, or an engine that is back, makes no difference.
 * @param definition undefined: the service is not wanted
 */
export function decide(
  definition: ServiceDefinition | undefined,
  containers: readonly ContainerView[],
  memory: RestartMemory,
  nowMs: number,
): Step {
  const hash = definition === undefined ? undefined : definitionHash(definition);
  const fitting = containers.filter((container) => container.hash === hash);
  const kept = fitting.find(({ status }) => status === 'running') ?? fitting[0];
  const orWait = (step: Step): Step => (nowMs < memory.retryAtMs ? { kind: 'wait', untilMs: memory.retryAtMs } : step);
  const other = containers.find((container) => container !== kept && container.status !== 'busy');
  if (other !== undefined) {
    const reason = definition === undefined ? 'unwanted' : other.hash === hash ? 'superfluous' : 'changed';
    const step: Step = { kind: 'remove', id: other.id, reason };
    // Its successor could not be made when this was tried before.
    return reason === 'changed' ? orWait(step) : step;
  }
  // Two containers of one service would write to the same volumes: one that is being removed is waited for.
  if (definition === undefined || containers.length > (kept === undefined ? 0 : 1)) return { kind: 'rest' };
  if (kept === undefined) return orWait({ kind: 'create' });
  switch (kept.status) {
    case 'running':
      return isToBeReplaced(definition, kept) ? { kind: 'remove', id: kept.id, reason: 'unhealthy' } : { kind: 'rest' };
    case 'created':
      return orWait({ kind: 'start', id: kept.id });
    case 'ended':
      return isToBeStartedAgain(definition, kept) ? orWait({ kind: 'start', id: kept.id }) : { kind: 'rest' };
    case 'busy':
      return { kind: 'rest' };
  }
}

/** Whether an ended service has to run. */
export function isToBeStartedAgain({ restart }: ServiceDefinition, { exitCode }: ContainerView): boolean {
  return restart === 'always' || (restart === 'on-failure' && exitCode !== 0);
}

function isToBeReplaced({ health, restart }: ServiceDefinition, container: ContainerView): boolean {
  return container.health === 'unhealthy' && health?.onFailure === 'restart' && restart !== 'never';
}

/** Counts an end that was not counted before. */
export function countEnd(
  memory: RestartMemory,
  container: ContainerView,
  nowMs: number,
  random: () => number = Math.random,
): RestartMemory {
  const countedEnd = `${container.id} ${container.endedAtMs}`;
  if (container.status !== 'ended' || countedEnd === memory.countedEnd) return memory;
  const isStable = container.endedAtMs - container.startedAtMs >= STABLE_MS;
  return { ...countFailure(isStable ? FRESH : memory, nowMs, random), countedEnd };
}

/** Counts a start that failed, or a service that had to be replaced. */
export function countFailure(memory: RestartMemory, nowMs: number, random: () => number = Math.random): RestartMemory {
  const { failures, countedEnd } = memory;
  return { failures: failures + 1, retryAtMs: nowMs + fullJitterMs(failures, BACKOFF, random), countedEnd };
}
