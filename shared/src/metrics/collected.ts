import { Counter, Gauge } from 'prom-client';
import type { MetricsRegistry } from './exposition.ts';

/** What is read when Prometheus asks: a number, or one for each set of labels; undefined: there is none now. */
export type Reading<Label extends string = string> =
  | number
  | undefined
  | readonly { labels: Readonly<Record<Label, string>>; value: number }[];

export interface CollectedOptions<Label extends string> {
  name: string;
  help: string;
  labelNames?: readonly Label[];
  /** A reading that fails, or takes longer than `DEADLINE_MS`, leaves the metric without figures, and the others as they are. */
  read: () => Reading<Label> | Promise<Reading<Label>>;
}

/** Before Prometheus itself gives a scrape up, after 10 s. */
const DEADLINE_MS = 5_000;

/** A gauge that is read when Prometheus asks. */
export function collectedGauge<Label extends string>(
  register: MetricsRegistry,
  options: CollectedOptions<Label>,
): void {
  const { name, help, labelNames = [], read } = options;
  new Gauge({
    name,
    help,
    labelNames,
    registers: [register],
    async collect() {
      const readings = await readingsOf(read);
      this.reset();
      // Without labels it would be 0 now.
      if (readings === undefined && labelNames.length === 0) this.remove();
      for (const { labels, value } of readings ?? []) this.set(labels, value);
    },
  });
}

/** As `collectedGauge`, for what somebody else counts. */
export function collectedCounter<Label extends string>(
  register: MetricsRegistry,
  options: CollectedOptions<Label>,
): void {
  const { name, help, labelNames = [], read } = options;
  new Counter({
    name,
    help,
    labelNames,
    registers: [register],
    async collect() {
      const readings = await readingsOf(read);
      this.reset();
      for (const { labels, value } of readings ?? []) this.inc(labels, value);
    },
  });
}

async function readingsOf<Label extends string>(
  read: CollectedOptions<Label>['read'],
): Promise<readonly { labels: Partial<Record<Label, string>>; value: number }[] | undefined> {
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), DEADLINE_MS);
    });
    const reading = await Promise.race([read(), late]);
    return typeof reading === 'number' ? [{ labels: {}, value: reading }] : reading;
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
