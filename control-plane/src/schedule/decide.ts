import { createHash } from 'node:crypto';
import type { Times } from './times.ts';

export type MisfirePolicy = 'skip' | 'once' | 'all';
export type OverlapPolicy = 'allow' | 'skip' | 'queue' | 'cancel';

/** What a schedule says about when something is started. */
export interface Plan {
  id: string;
  times: Times;
  /** A time is put off by less than this. */
  jitterMs: number;
  misfire: MisfirePolicy;
  /** A time that is noticed later than this is missed. */
  graceMs: number;
  /** Missed times that fire with `all`. */
  maxMissed: number;
  overlap: OverlapPolicy;
  /** Times that wait with `queue`. */
  maxQueued: number;
}

/** A firing that is not over. */
export interface OpenFiring {
  timeMs: number;
  /** To be started, waiting for those before it, or started and not ended. */
  state: 'pending' | 'queued' | 'started';
}

export interface Situation {
  nowMs: number;
  /** The times up to this one are decided. */
  decidedMs: number;
  /** In the order of their times. */
  open: readonly OpenFiring[];
}

/** What becomes of one time. */
export interface Decision {
  timeMs: number;
  dueMs: number;
  state: 'pending' | 'queued' | 'skipped';
  /** It stands for all missed times from this one on. */
  sinceMs: number | undefined;
  /** Why it is skipped. */
  message: string | undefined;
}

export interface Decided {
  firings: Decision[];
  /** Open firings, by their times: those that are to be started now, ... */
  start: number[];
  /** ... that are not to be started any more, ... */
  drop: { timeMs: number; message: string }[];
  /** ... and that are to be cancelled. */
  cancel: number[];
  decidedMs: number;
  /** When the next time is due; undefined: there is none. */
  nextDueMs: number | undefined;
}

/** Firings that are to be started and cannot be, for want of room or of a database, are not piled up beyond this. */
const MAX_PENDING = 1_000;
const MISSED = 'missed';
/** A window of grace has fewer times: they are a second apart, or more. */
const MAX_TIMELY = 1_000;

/**
 * When a time is due: itself, put off by what follows from schedule and time alone, so that every replica says the same. It
 * stays before the next time, so that the order of times is that in which they are due.
 */
export function dueMs(plan: Pick<Plan, 'id' | 'jitterMs' | 'times'>, timeMs: number): number {
  if (plan.jitterMs === 0) return timeMs;
  const nextMs = plan.times.after(timeMs) ?? Number.POSITIVE_INFINITY;
  const digest = createHash('sha256').update(`${plan.id} ${timeMs}`).digest();
  const share = digest.readUIntBE(0, 6) / 2 ** 48;
  return timeMs + Math.floor(share * Math.min(plan.jitterMs, nextMs - timeMs));
}

/** What becomes of the times of a schedule that are due, and of what it has under way. */
export function decide(plan: Plan, situation: Situation): Decided {
  const { open } = situation;
  const due = dueTimes(plan, situation);
  const decided: Decided = {
    firings: [],
    start: [],
    drop: [],
    cancel: [],
    decidedMs: due.decidedMs,
    nextDueMs: undefined,
  };
  const under: Open[] = open.map((firing) => ({ ...firing }));
  for (const time of due.times) {
    decided.firings.push(time.state === 'skipped' ? time : overlapped(plan, time, under, decided));
  }
  promote(plan, under, decided);
  const next = plan.times.after(decided.decidedMs);
  if (next !== undefined) decided.nextDueMs = dueMs(plan, next);
  return decided;
}

/** An open firing, or one that has just been decided and is in nobody's hands yet. */
type Open = OpenFiring & { fresh?: Decision };

/** The times that are due, those that were missed by the policy. */
function dueTimes(plan: Plan, { nowMs, decidedMs }: Situation): { times: Decision[]; decidedMs: number } {
  const { times, misfire, maxMissed } = plan;
  const missedToMs = nowMs - plan.graceMs;
  const at = (timeMs: number): Decision => {
    return { timeMs, dueMs: dueMs(plan, timeMs), state: 'pending', sinceMs: undefined, message: undefined };
  };
  const timely = times.latest(MAX_TIMELY, Math.max(decidedMs, missedToMs), nowMs).map((ms) => at(ms));
  // Of what is older, only the last one can have been put off until now.
  const [old] = times.latest(1, decidedMs, missedToMs).map((ms) => at(ms));
  if (old !== undefined && old.dueMs >= missedToMs) timely.unshift(old);
  const due = timely.filter((time) => time.dueMs <= nowMs);
  const endMs = old === undefined ? undefined : old.dueMs >= missedToMs ? old.timeMs - 1 : old.timeMs;
  const wanted = misfire === 'all' ? maxMissed + 1 : 1;
  const missed = endMs === undefined ? [] : times.latest(wanted, decidedMs, endMs);
  const firstMs = missed.length === 0 ? undefined : times.after(decidedMs);
  const catchUp = missed.map((timeMs, i): Decision => {
    const sinceMs = firstMs === timeMs ? undefined : firstMs;
    if (misfire === 'skip') return { ...at(timeMs), sinceMs, state: 'skipped', message: MISSED };
    if (misfire === 'once') return { ...at(timeMs), sinceMs };
    const isBeyond = i === 0 && missed.length > maxMissed;
    return isBeyond
      ? { ...at(timeMs), sinceMs, state: 'skipped', message: `${MISSED}; ${maxMissed} later ones fire` }
      : at(timeMs);
  });
  const all = [...catchUp, ...due];
  return { times: all, decidedMs: all.at(-1)?.timeMs ?? decidedMs };
}

/** One time that fires, beside what is under way. */
function overlapped(plan: Plan, time: Decision, under: Open[], decided: Decided): Decision {
  const firing: Decision = { ...time };
  const skipped = (message: string): Decision => ({ ...firing, state: 'skipped', message });
  const active = under.filter(({ state }) => state !== 'queued');
  const queued = under.filter(({ state }) => state === 'queued');
  const first = under[0];
  switch (plan.overlap) {
    case 'allow':
      if (active.filter(({ state }) => state === 'pending').length >= MAX_PENDING) {
        return skipped(`${MAX_PENDING} others wait to be started`);
      }
      break;
    case 'skip':
      if (first !== undefined) return skipped(`the one of ${textOf(first.timeMs)} has not ended`);
      break;
    case 'queue':
      if (queued.length >= plan.maxQueued) return skipped(`${queued.length} others wait already`);
      if (first !== undefined) firing.state = 'queued';
      break;
    case 'cancel': {
      const message = `the one of ${textOf(time.timeMs)} came before it was started`;
      for (const other of under) replace(other, message, decided);
      under.splice(0, under.length, ...active.filter(({ fresh }) => fresh === undefined));
      if (under.length > 0) firing.state = 'queued';
      break;
    }
  }
  under.push({ timeMs: firing.timeMs, state: firing.state === 'queued' ? 'queued' : 'pending', fresh: firing });
  return firing;
}

/** Makes room: what runs, or is about to, is cancelled; what waits, or was decided just now, is not started. */
function replace(firing: Open, message: string, decided: Decided): void {
  if (firing.fresh !== undefined) {
    firing.fresh.state = 'skipped';
    firing.fresh.message = message;
  } else if (firing.state === 'queued') decided.drop.push({ timeMs: firing.timeMs, message });
  else if (!decided.cancel.includes(firing.timeMs)) decided.cancel.push(firing.timeMs);
}

/** What waits is started when nothing is under way any more, one after the other. */
function promote({ overlap }: Plan, under: readonly Open[], decided: Decided): void {
  const queued = under.filter(({ state }) => state === 'queued');
  const isFree = queued.length === under.length;
  for (const { timeMs, fresh } of overlap === 'allow' ? queued : isFree ? queued.slice(0, 1) : []) {
    if (fresh === undefined) decided.start.push(timeMs);
    else fresh.state = 'pending';
  }
}

function textOf(ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z');
}
