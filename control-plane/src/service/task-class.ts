import { HarrierError } from '@harrier/shared';
import type { Limits, SlurmJob } from '@harrier/shared/gen/module';
import { slurmExcess, type TaskClass } from '@harrier/shared/task-classes-file';

export const DEFAULT_TASK_CLASS = 'cpu_short';

/** Those that this control plane knows, by name. */
export type TaskClasses = ReadonlyMap<string, TaskClass>;

/** @throws HarrierError invalid_argument for a class that does not exist */
export function findTaskClass(classes: TaskClasses, name: string, field: string): TaskClass {
  const found = classes.get(name);
  if (found !== undefined) return found;
  throw new HarrierError(
    'invalid_argument',
    `${field}: there is no task class "${name}"; choose one of ${[...classes.keys()].join(', ')}`,
    { field },
  );
}

const CAPPED = [
  ['cpu', 'cpu'],
  ['memoryBytes', 'memory_bytes'],
  ['stdoutBytes', 'stdout_bytes'],
  ['stderrBytes', 'stderr_bytes'],
  ['outputBytes', 'output_bytes'],
  ['tmpBytes', 'tmp_bytes'],
  ['processes', 'processes'],
  ['gpus', 'gpus'],
  ['network', 'network'],
] as const satisfies [keyof Limits, string][];

/**
 * Whether a class allows what is asked for; the words for network access stand in the order of what they allow.
 * @param prefix of the fields, for example `module.`
 * @throws HarrierError invalid_argument naming the field, what it asks for, and the most
 */
export function checkAllowed(
  { name, maxTimeoutMs, maxLimits, environments }: TaskClass,
  asked: { timeoutMs: number | undefined; limits: Limits | undefined; environment: string },
  prefix = '',
): void {
  const refuse = (field: string, problem: string) => {
    const message = `${prefix}${field}: ${problem}; see the task class "${name}"`;
    return new HarrierError('invalid_argument', message, { field: `${prefix}${field}` });
  };
  const { timeoutMs, limits, environment } = asked;
  if (timeoutMs !== undefined && timeoutMs > (maxTimeoutMs ?? Number.POSITIVE_INFINITY)) {
    throw refuse(
      'timeout',
      `${timeoutMs / 1000} s is longer than the ${(maxTimeoutMs ?? 0) / 1000} s that are allowed`,
    );
  }
  for (const [local, field] of CAPPED) {
    const most = maxLimits[local];
    const value = limits?.[local] ?? 0;
    if (most > 0 && value > most) throw refuse(`limits.${field}`, `${value} is more than the ${most} that are allowed`);
  }
  if (environments === undefined || environments.includes(environment)) return;
  throw refuse('environment', `"${environment}" is not allowed; choose one of ${environments.join(', ')}`);
}

/**
 * Whether a class allows what is asked of the cluster, beside what the limits of the attempt ask of it.
 * @param job undefined: it is no job of Slurm
 * @throws HarrierError invalid_argument naming the field, what it asks for, and the most
 */
export function checkSlurmAllowed(taskClass: TaskClass, job: SlurmJob | undefined, prefix = ''): void {
  const excess = job === undefined ? undefined : slurmExcess(job, taskClass);
  if (excess === undefined) return;
  const field = `${prefix}${excess.field}`;
  const message = `${field}: ${excess.problem}; see the task class "${taskClass.name}"`;
  throw new HarrierError('invalid_argument', message, { field });
}
