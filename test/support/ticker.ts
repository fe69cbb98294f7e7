import { code, fixture } from './requests.ts';

interface Ticks {
  lines: number;
  width?: number;
  /** Seconds between two lines. */
  pause?: number;
}

/** Code that prints numbered lines, one after the other: something to interrupt. */
export function ticker(ticks: Ticks) {
  return code(fixture('ticker.py'), ticks);
}

/** What it prints. */
export function tickerText({ lines, width = 0 }: Ticks): string {
  return Array.from({ length: lines }, (_, number) => `line ${number} ${'x'.repeat(width)}\n`).join('');
}
