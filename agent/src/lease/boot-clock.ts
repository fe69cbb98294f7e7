import { uptime } from 'node:os';

/** Milliseconds since the host was started, those in which it slept included: a lease does not wait for a lid to open. */
export function bootNowMs(): number {
  return uptime() * 1000;
}

/** The same moment by CLOCK_MONOTONIC, which stands still while the host sleeps: the clock that other processes have too. */
export function monotonicMs(bootMs: number): number {
  return Number(process.hrtime.bigint() / 1_000n) / 1000 + bootMs - bootNowMs();
}
