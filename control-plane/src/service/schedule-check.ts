import { toBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { HarrierError, messageOf } from '@harrier/shared';
import { type Schedule, ScheduleSchema } from '@harrier/shared/gen/schedule';
import { CRON_HORIZON_YEARS, cronTimes } from '../schedule/times.ts';

/** Lists and the runner read whole schedules, many at once; what is larger belongs into a module or a workflow. */
const MAX_BYTES = 256 * 1024;

/** @throws HarrierError invalid_argument when it is too large to be stored */
export function checkSize(schedule: Schedule): void {
  const bytes = toBinary(ScheduleSchema, schedule).length;
  if (bytes > MAX_BYTES) {
    const advice = 'store code and input with a module or a workflow, and name that';
    throw wrong('schedule', `it has ${bytes} bytes, and may have ${MAX_BYTES}; ${advice}`);
  }
}

/** What a schedule says of its times. @throws HarrierError invalid_argument with the field's path */
export function checkTimes({ times, startTime, endTime }: Schedule): void {
  if (times.case === 'cron') {
    const { expression, timeZone } = times.value;
    if (timeZone !== '' && !isTimeZone(timeZone)) {
      throw wrong('schedule.cron.time_zone', `there is no time zone "${timeZone}"; write one like Europe/Berlin`);
    }
    try {
      cronTimes(expression, timeZone === '' ? 'UTC' : timeZone);
    } catch (error) {
      throw wrong('schedule.cron.expression', `"${expression}" is no cron expression: ${messageOf(error)}`);
    }
  }
  if (times.case === 'interval' && times.value.nanos % 1e6 !== 0) {
    throw wrong('schedule.interval', 'an interval is given in whole milliseconds');
  }
  if (startTime !== undefined && endTime !== undefined && timestampMs(endTime) <= timestampMs(startTime)) {
    throw wrong('schedule.end_time', 'it must be after start_time');
  }
}

/** Why a schedule has no time after now. */
export function noTimes({ times, endTime }: Schedule, nowMs: number): HarrierError {
  const now = new Date(nowMs).toISOString();
  if (endTime !== undefined && timestampMs(endTime) <= nowMs) {
    return wrong('schedule.end_time', `it must be in the future; it is ${now}`);
  }
  const field =
    times.case === 'once' ? 'schedule.once' : times.case === 'cron' ? 'schedule.cron.expression' : 'schedule.interval';
  const within = times.case === 'cron' ? ` in the ${CRON_HORIZON_YEARS} years` : '';
  return wrong(field, `it has no time${within} after now (${now}) and before the end`);
}

/** An error about what a schedule starts, as one about the schedule. */
export function targetError(error: unknown, field: string): unknown {
  if (!(error instanceof HarrierError) || !['invalid_argument', 'not_found'].includes(error.code)) return error;
  const path = error.field === undefined ? field : `${field}.${error.field}`;
  return new HarrierError('invalid_argument', `${path}: ${error.message}`, { field: path, cause: error });
}

export function wrong(field: string, problem: string): HarrierError {
  return new HarrierError('invalid_argument', `${field}: ${problem}`, { field });
}

function isTimeZone(timeZone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone });
    return true;
  } catch {
    return false;
  }
}
