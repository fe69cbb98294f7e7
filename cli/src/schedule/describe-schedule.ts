import { durationMs } from '@bufbuild/protobuf/wkt';
import {
  Schedule_Misfire_Policy as Misfire,
  Schedule_Overlap_Policy as Overlap,
  type Schedule,
} from '@harrier/shared/gen/schedule';
import { formatMs, formatTime, nameIn } from '../execution/describe.ts';
import { formatFields } from '../output/table.ts';

/** `0 30 2 * * * Europe/Berlin`, `every 5.00 s`, `2030-01-31T08:00:00.000Z`. */
export function timesText({ times }: Schedule): string {
  switch (times.case) {
    case 'cron':
      return `${times.value.expression} ${times.value.timeZone || 'UTC'}`;
    case 'interval':
      return `every ${formatMs(durationMs(times.value))}`;
    case 'once':
      return formatTime(times.value);
    case undefined:
      return '';
  }
}

/** `module report 1.2.0`, `workflow pipeline`, `image alpine`, `code`. */
export function targetText({ target }: Schedule): string {
  if (target.case === 'workflow') return `workflow ${target.value.name} ${target.value.version}`.trimEnd();
  if (target.case === undefined) return '';
  const { target: what, version } = target.value;
  if (what.case === 'module') return `module ${what.value} ${version}`.trimEnd();
  return what.case === 'image' ? `image ${what.value.image}` : (what.case ?? '');
}

/** All of it, for a person. */
export function describeSchedule(schedule: Schedule): string {
  const { misfire, overlap, jitter, paused, nextTimes } = schedule;
  return formatFields([
    ['name', schedule.name],
    ['id', schedule.id],
    ['description', schedule.description],
    ['times', timesText(schedule)],
    ['target', targetText(schedule)],
    ['misfire', misfire?.policy ? nameIn(Misfire, misfire.policy) : 'ONCE'],
    ['overlap', overlap?.policy ? nameIn(Overlap, overlap.policy) : 'ALLOW'],
    ['jitter', jitter === undefined ? '' : formatMs(durationMs(jitter))],
    ['start', formatTime(schedule.startTime)],
    ['end', formatTime(schedule.endTime)],
    ['paused', paused ? 'yes' : ''],
    ['created', formatTime(schedule.createTime)],
    ['updated', formatTime(schedule.updateTime)],
    ...nextTimes.map((time, i): [string, string] => [i === 0 ? 'next' : '', formatTime(time)]),
  ]);
}
