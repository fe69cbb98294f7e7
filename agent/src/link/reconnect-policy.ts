import { fullJitterMs } from '@harrier/shared';
import { Goodbye_Code as Code } from '@harrier/shared/gen/link';
import type { LinkEnd } from './link-session.ts';
import type { LinkTimings } from './link-timings.ts';

/** What follows the end of a link. */
export type AfterLink = { kind: 'retry'; waitMs: number; failures: number } | { kind: 'give-up'; reason: string };

/** Ends after which coming back is useless or harmful, and what the operator is told. */
const FINAL: ReadonlyMap<number, string> = new Map([
  [Code.REVOKED, 'the control plane has deleted this agent'],
  [Code.REFUSED, 'the control plane refused this agent'],
  [Code.REPLACED, 'another process has linked with the identity of this agent'],
]);

/** What was before the end of a link. */
export interface LinkHistory {
  /** Ends before this one since the last stable link. */
  failures: number;
  /** How long the link was up; 0 when the handshake failed. */
  linkedMs: number;
  /** Control planes that are dialled in turn. */
  urls: number;
}

/** Decides what follows the end of a link: the next control plane at once, and a wait after each round of failures. */
export function afterLink(
  end: LinkEnd,
  { failures, linkedMs, urls }: LinkHistory,
  timings: LinkTimings,
  random: () => number = Math.random,
): AfterLink {
  if (end.kind === 'closed-here') return { kind: 'give-up', reason: 'the agent stops' };
  if (end.kind === 'goodbye') {
    const reason = FINAL.get(end.code);
    if (reason !== undefined)
      return { kind: 'give-up', reason: end.message === '' ? reason : `${reason}: ${end.message}` };
    if (end.code === Code.SHUTDOWN && linkedMs > 0) {
      return { kind: 'retry', waitMs: random() * timings.switchJitterMs, failures: 0 };
    }
  }
  const before = linkedMs >= timings.stableMs ? 0 : failures;
  const after = before + 1;
  const waitMs =
    after % urls === 0 ? fullJitterMs(after / urls - 1, timings.backoff, random) : random() * timings.switchJitterMs;
  return { kind: 'retry', waitMs, failures: after };
}
