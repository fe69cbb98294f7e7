import type { ExecutionPlan, Kind } from './execution-plan.ts';
import type { Random } from './random.ts';

/** A schedule of a round, with everything that is decided about it beforehand. */
export interface SchedulePlan {
  /** Its name, and that of its workflow. Unique in a run of the machine. */
  key: string;
  /** By the calendar, or so long after one another from its start on. */
  times: 'cron' | 'interval';
  /** Whole seconds, of which a minute has a whole number. */
  everyMs: number;
  jitterMs: number;
  misfire: 'skip' | 'once' | 'all';
  graceMs: number;
  overlap: 'allow' | 'skip' | 'queue' | 'cancel';
  /** With `queue`: times that wait. */
  maxQueued: number;
  /** What each time executes; undefined: a run of a workflow that needs no agent. */
  job: ExecutionPlan | undefined;
  /** It has times for so long at least, and until the fault is over. */
  leastMs: number;
}

const SECOND_MS = 1_000;
const LEAST_MS = 6_000;
const MOST_JITTER_MS = 500;
/** Few: what waits is started one after the other when the fault is over. */
const MAX_QUEUED = 2;
/** About as long as it is from one time to the next: often one has not ended when the next one comes. */
const LONGEST_RUN_MS = 2_500;
/** The default, within which every time fires; and one that faults exceed. */
const GRACES_MS = [60_000, 60_000, SECOND_MS];

/** One that starts runs of a workflow beside each other, and one that starts code with another policy. */
export function planSchedules(random: Random, round: string, kinds: readonly Kind[]): SchedulePlan[] {
  const plan = (name: string, more: Pick<SchedulePlan, 'everyMs' | 'overlap' | 'job'>): SchedulePlan => ({
    key: `${round}-${name}`,
    times: random.pick(['cron', 'interval'] as const),
    jitterMs: random.chance(0.5) ? random.integer(1, MOST_JITTER_MS) : 0,
    misfire: random.pick(['skip', 'once', 'all'] as const),
    graceMs: random.pick(GRACES_MS),
    maxQueued: MAX_QUEUED,
    leastMs: LEAST_MS,
    ...more,
  });
  const runs = plan('s1', { everyMs: SECOND_MS, overlap: 'allow', job: undefined });
  if (!kinds.includes('inline')) return [runs];
  const overlap = random.pick(['skip', 'queue', 'cancel'] as const);
  return [runs, plan('s2', { everyMs: 2 * SECOND_MS, overlap, job: planJob(random, `${round}-s2`) })];
}

function planJob(random: Random, key: string): ExecutionPlan {
  return {
    ...{
      key,
      kind: 'inline',
      way: 'schedule',
      arrivalMs: 0,
      failures: 0,
      retries: true,
      isFlaky: false,
      daemon: false,
    },
    runMs: random.integer(100, LONGEST_RUN_MS),
    lines: random.integer(0, 5),
    lineBytes: random.integer(20, 120),
  };
}

/** Times of a schedule in [fromMs, untilMs), given the start that it was made with. */
export function timesIn({ times, everyMs }: SchedulePlan, startMs: number, fromMs: number, untilMs: number): number[] {
  const firstMs = times === 'interval' ? startMs : Math.ceil(startMs / everyMs) * everyMs;
  const index = Math.max(0, Math.ceil((fromMs - firstMs) / everyMs));
  const count = Math.max(0, Math.ceil((untilMs - firstMs) / everyMs) - index);
  return Array.from({ length: count }, (_, i) => firstMs + (index + i) * everyMs);
}

/** Begins the names of the files of evidence of what its times executed, which end in the time: as `workload/job.py` makes them. */
export function witnessPrefix(key: string): string {
  return `${key}@`;
}
