import { Cron, CronPattern } from 'croner';
import { type Change, Clock, type WallMs } from './clock.ts';

/** The times of a schedule, in milliseconds since 1970. They are in no order but that of time, and no two are the same. */
export interface Times {
  /** The first one behind a moment; undefined: there is none. */
  after(ms: number): number | undefined;
  /** The latest ones behind `afterMs` and up to `upToMs`, at most `count`, in their order. */
  latest(count: number, afterMs: number, upToMs: number): number[];
}

/** Fields of a cron expression: five, or six with seconds. */
const FIELDS = /^\s*(\S+\s+){4,5}\S+\s*$/;
const NICKNAMES = /^\s*@(hourly|daily|midnight|weekly|monthly|yearly|annually)\s*$/i;
/** A cron expression is taken to have no time when none is found so far ahead. The rarest date comes every 40 years. */
export const CRON_HORIZON_YEARS = 50;
const CRON_HORIZON_MS = CRON_HORIZON_YEARS * 366 * 86_400_000;
const RULES = { mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard' } as const;

/**
 * Times by the calendar of a time zone. Those of an expression without wildcard or step in seconds, minutes and hours are
 * wanted on every day: when clocks go forward over one, it is the first time behind the gap; when they go back over it, it
 * is the first of the two. Times of other expressions are as many as the clock shows. What the clock shows is searched, and a
 * gap is one step: a search takes milliseconds, even when all times are in gaps.
 * @throws Error that says what is wrong with the expression. @throws RangeError for an unknown time zone
 */
export function cronTimes(expression: string, timeZone: string): Times {
  // It would also take a date, whatever the mode.
  if (!FIELDS.test(expression) && !NICKNAMES.test(expression)) {
    throw new Error(
      'it needs five fields, or six with seconds, or is one of @hourly, @daily, @weekly, @monthly, @yearly',
    );
  }
  const clock = new Clock(timeZone);
  // Without a zone of its own: it tries every second of a gap.
  const cron = new Cron(expression.trim(), { ...RULES, utcOffset: 0 });
  const isFixed = new CronPattern(expression.trim(), undefined, RULES).isFixedTime;
  const wallAfter = (wall: WallMs) => cron.nextRun(new Date(wall))?.getTime();
  const wallBefore = (wall: WallMs) => cron.previousRuns(1, new Date(wall))[0]?.getTime();

  /** The change that makes the clock show again what it shows at a moment, or has made it do so. */
  const repeat = (ms: number): (Change & { isFirst: boolean }) | undefined => {
    const [first, second] = clock.shown(clock.wallAt(ms)).moments;
    return first === undefined || second === undefined
      ? undefined
      : { ...clock.changeIn(first, second), isFirst: ms === first };
  };
  /** The moments that a time of the expression stands for, and the gap that it is in. */
  const momentsOf = (wall: WallMs): { moments: readonly number[]; gap?: Change } => {
    const shown = clock.shown(wall);
    if (!isFixed) return shown;
    if (shown.moments.length > 0) return { moments: shown.moments.slice(0, 1) };
    const isSameDay = 'gap' in shown && Math.floor(shown.gap.after / 86_400_000) === Math.floor(wall / 86_400_000);
    return isSameDay ? { ...shown, moments: [shown.gap.atMs] } : shown;
  };

  const after = (ms: number): number | undefined => {
    let fromMs = Math.floor(ms / 1000) * 1000;
    let wall: WallMs = clock.wallAt(fromMs);
    const horizon = wall + CRON_HORIZON_MS;
    const twice = repeat(fromMs);
    if (twice !== undefined && isFixed && !twice.isFirst) wall = twice.before - 1000;
    if (twice !== undefined && !isFixed && twice.isFirst) {
      const next = wallAfter(wall);
      if (next !== undefined && next < twice.before) return fromMs + next - wall;
      // What is shown again comes first.
      fromMs = twice.atMs - 1000;
      wall = twice.after - 1000;
    }
    for (;;) {
      const next = wallAfter(wall);
      if (next === undefined || next > horizon) return undefined;
      const { moments, gap } = momentsOf(next);
      const found = moments.find((moment) => moment > fromMs);
      if (found !== undefined) return found;
      wall = gap === undefined ? next : gap.after - 1000;
    }
  };
  /** The last one before a moment and behind another. */
  const before = (ms: number, afterMs: number): number | undefined => {
    let toMs = Math.ceil(ms / 1000) * 1000;
    let wall: WallMs = clock.wallAt(toMs);
    const twice = repeat(toMs);
    if (twice !== undefined && !twice.isFirst) {
      const last = isFixed ? undefined : wallBefore(wall);
      if (last !== undefined && last >= twice.after) return toMs + last - wall;
      // What was shown the first time comes behind it.
      if (!isFixed) toMs = twice.atMs;
      wall = twice.before;
    }
    for (;;) {
      const last = wallBefore(wall);
      if (last === undefined) return undefined;
      const { moments, gap } = momentsOf(last);
      const found = moments.findLast((moment) => moment < toMs);
      if (found !== undefined) return found > afterMs ? found : undefined;
      wall = gap === undefined ? last : gap.before;
      if (gap !== undefined && gap.atMs <= afterMs) return undefined;
    }
  };
  return {
    after,
    latest: (count, afterMs, upToMs) => {
      const found: number[] = [];
      // One by one: those before `afterMs` may be many and far.
      let end = Math.floor(upToMs / 1000) * 1000 + 1000;
      while (found.length < count) {
        const last = before(end, afterMs);
        if (last === undefined) break;
        found.push(last);
        end = last;
      }
      return found.toReversed();
    },
  };
}

/** Times in equal distances. */
export function intervalTimes(firstMs: number, everyMs: number): Times {
  const indexAfter = (ms: number) => Math.max(0, Math.floor((ms - firstMs) / everyMs) + 1);
  return {
    after: (ms) => firstMs + indexAfter(ms) * everyMs,
    latest: (count, afterMs, upToMs) => {
      const end = indexAfter(upToMs);
      const begin = Math.max(indexAfter(afterMs), end - count);
      return Array.from({ length: Math.max(0, end - begin) }, (_, i) => firstMs + (begin + i) * everyMs);
    },
  };
}

export function singleTime(atMs: number): Times {
  return {
    after: (ms) => (ms < atMs ? atMs : undefined),
    latest: (count, afterMs, upToMs) => (count > 0 && afterMs < atMs && atMs <= upToMs ? [atMs] : []),
  };
}

/** Only those from a start on and before an end. */
export function boundedTimes(
  times: Times,
  startMs = Number.NEGATIVE_INFINITY,
  endMs = Number.POSITIVE_INFINITY,
): Times {
  return {
    after: (ms) => {
      const next = times.after(Math.max(ms, startMs - 1));
      return next === undefined || next >= endMs ? undefined : next;
    },
    latest: (count, afterMs, upToMs) => {
      const [after, upTo] = [Math.max(afterMs, startMs - 1), Math.min(upToMs, endMs - 1)];
      return after < upTo ? times.latest(count, after, upTo) : [];
    },
  };
}
