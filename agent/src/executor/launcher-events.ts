import type { JsonObject } from '@bufbuild/protobuf';
import { ExecutionError_Code } from '@harrier/shared/gen/error';
import type { LauncherEvents } from '../launcher/launcher.ts';
import type { FinishedMessage, LoadMessage, WelcomeMessage } from '../launcher/messages.ts';
import { bootNowMs } from '../lease/boot-clock.ts';
import type { AboutAttempt, AttemptEnd, Executor, ExecutorEvents } from './executor.ts';

/** What the launcher tells beside its attempts. */
export interface LauncherFacts {
  /** @param cgroupLimits limits that hold for an attempt as a whole */
  onIsolation(isolation: WelcomeMessage['isolation'], cgroupLimits: readonly string[]): void;
  /** The interpreter of inline code. */
  onPython(path: string): void;
  onLoad(load: LoadMessage): void;
  /** No launcher answers any more. */
  onLost(): void;
  /**
   * A launcher answers: another process has none of the interpreters that the former one had.
   * @param ageMs for how long it has run; undefined: it does not say
   */
  onLauncher(pid: number, ageMs: number | undefined): void;
  onAttached(tenant: string, key: string): void;
  onDetached(tenant: string, key: string, reason: string): void;
}

/** How much later than a launcher's word for its age the word is read, at most: no launcher starts twice in so short a time. */
const AGE_READ_MS = 100;

/** Turns the launcher's messages into those of the executor that it runs attempts for. */
export function launcherEvents(
  executor: () => Executor,
  events: ExecutorEvents,
  facts: LauncherFacts,
  nowMs: () => number = bootNowMs,
): LauncherEvents {
  let before: { pid: number; startMs: number } | undefined;
  /** Launchers that are the first process of a container have the same number. */
  const isAnother = ({ pid, age_ms: ageMs }: WelcomeMessage): boolean => {
    const former = before;
    before = ageMs === undefined ? undefined : { pid, startMs: nowMs() - ageMs };
    if (former === undefined || before === undefined) return true;
    return former.pid !== pid || Math.abs(former.startMs - before.startMs) > AGE_READ_MS;
  };
  return {
    onWelcome: (welcome) => {
      facts.onLauncher(welcome.pid, welcome.age_ms);
      facts.onIsolation(welcome.isolation, welcome.cgroup_limits ?? []);
      facts.onPython(welcome.python_path);
      const held = welcome.attempts.map(({ execution, attempt, state, gpus, about }) => {
        const has = gpus === undefined ? {} : { gpuUuids: gpus };
        return { executionId: execution, attempt, ...aboutOf(about), finished: state === 'finished', ...has };
      });
      events.onRecovered(executor(), held, isAnother(welcome));
    },
    onLost: () => {
      facts.onLost();
      events.onLost(executor());
    },
    onStarted: (executionId, attempt) => events.onStarted({ executionId, attempt }),
    onOutput: (executionId, attempt, stream, offset, data) => {
      events.onOutput({ executionId, attempt }, stream, offset, data);
    },
    onProgress: (executionId, attempt, percent, step) => events.onProgress({ executionId, attempt }, percent, step),
    onFinished: (message, result) => {
      events.onFinished({ executionId: message.execution, attempt: message.attempt }, attemptEnd(message, result));
    },
    onLoad: (load) => facts.onLoad(load),
    onAttached: (tenant, key) => facts.onAttached(tenant, key),
    onDetached: (tenant, key, reason) => facts.onDetached(tenant, key, reason),
  };
}

function aboutOf(about: WelcomeMessage['attempts'][number]['about']): AboutAttempt {
  if (about === undefined) return {};
  const { tenant, task_class: taskClass, environment, trace_parent: traceParent } = about;
  return {
    tenant,
    ...(taskClass === undefined ? {} : { taskClass }),
    ...(environment === undefined ? {} : { environment }),
    ...(traceParent === undefined ? {} : { traceParent }),
  };
}

/** How an attempt ended, in the words of the runtime. */
export function attemptEnd(message: FinishedMessage, output: Uint8Array): AttemptEnd {
  return {
    outcome: message.outcome,
    error: message.error === null ? undefined : executionError(message.error),
    exitCode: message.exit_code ?? undefined,
    output,
    runMs: message.run_ms,
    cpuMs: message.usage?.cpu_ms ?? 0,
    maxRssBytes: message.usage?.max_rss_bytes ?? 0,
    stdoutBytes: message.stdout,
    stderrBytes: message.stderr,
    stdoutTruncated: message.stdout_truncated,
    stderrTruncated: message.stderr_truncated,
    ...(message.never_started && { neverStarted: message.never_started }),
  };
}

/** The launcher names codes as the execution model does. */
const CODES: Readonly<Record<string, ExecutionError_Code | undefined>> = ExecutionError_Code;

function executionError(error: NonNullable<FinishedMessage['error']>): AttemptEnd['error'] {
  const code = CODES[error.code];
  return {
    code: code ?? ExecutionError_Code.INTERNAL,
    message: error.message,
    ...(error.details ? { details: error.details as JsonObject } : {}),
  };
}
