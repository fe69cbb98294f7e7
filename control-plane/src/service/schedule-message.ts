import { create, fromBinary } from '@bufbuild/protobuf';
import { timestampFromDate, timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type ScheduleFiring_State as FiringState,
  type Schedule,
  type ScheduleFiring,
  ScheduleFiringSchema,
  ScheduleSchema,
} from '@harrier/shared/gen/schedule';
import type { FiringRow } from '../db/queries/schedule-firings.ts';
import type { ScheduleRow } from '../db/queries/schedules.ts';
import { planOf } from '../schedule/plan.ts';

/** A schedule with so many of its next times. */
export function scheduleMessage(row: ScheduleRow, nextCount: number): Schedule {
  const message = fromBinary(ScheduleSchema, row.definition);
  message.id = row.id;
  message.name = row.name;
  message.createTime = timestampFromDate(row.create_time);
  message.updateTime = timestampFromDate(row.update_time);
  if (row.paused) {
    message.paused = true;
    return message;
  }
  const { times } = planOf(row.id, message, row.anchor_time.getTime());
  let ms: number | undefined = row.decided_time.getTime();
  while (message.nextTimes.length < nextCount) {
    ms = times.after(ms);
    if (ms === undefined) break;
    message.nextTimes.push(timestampFromMs(ms));
  }
  return message;
}

export function firingMessage(row: FiringRow): ScheduleFiring {
  const message = create(ScheduleFiringSchema, {
    time: timestampFromDate(row.time),
    dueTime: timestampFromDate(row.due_time),
    state: row.state as FiringState,
    executionId: row.execution_id ?? '',
    runId: row.run_id ?? '',
    message: row.message ?? '',
    createTime: timestampFromDate(row.create_time),
  });
  if (row.start_time !== null) message.startTime = timestampFromDate(row.start_time);
  if (row.since_time !== null) message.since = timestampFromDate(row.since_time);
  return message;
}
