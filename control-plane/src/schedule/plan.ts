import { fromBinary } from '@bufbuild/protobuf';
import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import {
  Schedule_Misfire_Policy as Misfire,
  Schedule_Overlap_Policy as Overlap,
  type Schedule,
  ScheduleSchema,
} from '@harrier/shared/gen/schedule';
import type { MisfirePolicy, OverlapPolicy, Plan } from './decide.ts';
import { boundedTimes, cronTimes, intervalTimes, singleTime, type Times } from './times.ts';

const DEFAULT_TIME_ZONE = 'UTC';
const DEFAULT_GRACE_MS = 60_000;
const DEFAULT_MAX_MISSED = 100;
const DEFAULT_MAX_QUEUED = 100;

/** Numbers that a newer schema may have are as none. */
const MISFIRES: Readonly<Partial<Record<Misfire, MisfirePolicy>>> = {
  [Misfire.SKIP]: 'skip',
  [Misfire.ONCE]: 'once',
  [Misfire.ALL]: 'all',
};
const OVERLAPS: Readonly<Partial<Record<Overlap, OverlapPolicy>>> = {
  [Overlap.ALLOW]: 'allow',
  [Overlap.SKIP]: 'skip',
  [Overlap.QUEUE]: 'queue',
  [Overlap.CANCEL]: 'cancel',
};

/** A schedule as it is stored. */
export interface StoredSchedule {
  id: string;
  definition: Uint8Array;
  /** From where its interval is counted, where it has no start. */
  anchor_time: Date;
}

/** What a stored schedule says about when something is started. */
export function storedPlan({ id, definition, anchor_time }: StoredSchedule): Plan {
  return planOf(id, fromBinary(ScheduleSchema, definition), anchor_time.getTime());
}

/**
 * What a schedule says about when something is started, its defaults filled in.
 * @throws Error, RangeError as `cronTimes`
 */
export function planOf(id: string, schedule: Schedule, anchorMs: number): Plan {
  const { misfire, overlap, jitter } = schedule;
  return {
    id,
    times: timesOf(schedule, anchorMs),
    jitterMs: durationMs(jitter) ?? 0,
    misfire: MISFIRES[misfire?.policy ?? Misfire.POLICY_UNSPECIFIED] ?? 'once',
    graceMs: durationMs(misfire?.grace) ?? DEFAULT_GRACE_MS,
    maxMissed: misfire?.max || DEFAULT_MAX_MISSED,
    overlap: OVERLAPS[overlap?.policy ?? Overlap.POLICY_UNSPECIFIED] ?? 'allow',
    maxQueued: overlap?.maxQueued || DEFAULT_MAX_QUEUED,
  };
}

function timesOf({ times, startTime, endTime }: Schedule, anchorMs: number): Times {
  const startMs = momentMs(startTime);
  const bounded = (all: Times) => boundedTimes(all, startMs, momentMs(endTime));
  switch (times.case) {
    case 'cron':
      return bounded(cronTimes(times.value.expression, times.value.timeZone || DEFAULT_TIME_ZONE));
    case 'interval': {
      const everyMs = durationMs(times.value) ?? 0;
      return bounded(intervalTimes(startMs ?? anchorMs + everyMs, everyMs));
    }
    case 'once':
      return bounded(singleTime(timestampMs(times.value)));
    case undefined:
      throw new Error('a schedule has no times');
  }
}

function momentMs(time: Timestamp | undefined): number | undefined {
  return time === undefined ? undefined : timestampMs(time);
}

function durationMs(duration: { seconds: bigint; nanos: number } | undefined): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds) * 1000 + Math.trunc(duration.nanos / 1e6);
}
