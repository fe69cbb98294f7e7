const DAY_MS = 86_400_000;
/** Names of zones may be written in many ways; their formats are large. */
const MAX_FORMATS = 600;
const formats = new Map<string, Intl.DateTimeFormat>();

/** What the clock of a zone shows at a moment, as the milliseconds since 1970 of a clock in UTC that shows the same. */
export type WallMs = number;

/** When a clock shows a time: at one moment, at two, or never, since it goes forward over it at `changeMs`. */
export type Shown = { moments: readonly [number] | readonly [number, number] } | { moments: readonly []; gap: Change };

/** Clocks change at a moment, from `before` to `after`. */
export interface Change {
  atMs: number;
  before: WallMs;
  after: WallMs;
}

/** The clock of a time zone, in whole seconds. */
export class Clock {
  readonly #format: Intl.DateTimeFormat;

  /** @throws RangeError for an unknown zone */
  constructor(timeZone: string) {
    this.#format = formatOf(timeZone);
  }

  wallAt(ms: number): WallMs {
    return ms + this.#offsetMs(ms);
  }

  /** When it shows a time. Two changes are taken to be more than two days apart. */
  shown(wall: WallMs): Shown {
    const before = wall - this.#offsetMs(wall - DAY_MS);
    const after = wall - this.#offsetMs(wall + DAY_MS);
    const isShown = (ms: number) => this.wallAt(ms) === wall;
    if (before === after) return { moments: [before] };
    const [isBefore, isAfter] = [isShown(before), isShown(after)];
    if (isBefore && isAfter) return { moments: [before, after] };
    if (isBefore) return { moments: [before] };
    if (isAfter) return { moments: [after] };
    return { moments: [], gap: this.changeIn(after, before) };
  }

  /** The change behind the first of two moments, and not behind the second. */
  changeIn(fromMs: number, toMs: number): Change {
    const offsetMs = this.#offsetMs(fromMs);
    let [low, high] = [fromMs, toMs];
    while (high - low > 1000) {
      const middle = low + Math.floor((high - low) / 2000) * 1000;
      if (this.#offsetMs(middle) === offsetMs) low = middle;
      else high = middle;
    }
    return { atMs: high, before: high + offsetMs, after: this.wallAt(high) };
  }

  #offsetMs(ms: number): number {
    const part: Record<string, number> = {};
    for (const { type, value } of this.#format.formatToParts(ms)) part[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
    return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(ms / 1000) * 1000;
  }
}

function formatOf(timeZone: string): Intl.DateTimeFormat {
  const known = formats.get(timeZone);
  if (known !== undefined) return known;
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
  if (formats.size >= MAX_FORMATS) formats.clear();
  formats.set(timeZone, format);
  return format;
}
