import { until } from '../test/support/wait.ts';
import { audit, type Verdict } from './auditor.ts';
import type { ExecutionEvidence, RoundEvidence } from './evidence.ts';
import type { Fault } from './faults/fault.ts';
import { FAULTS } from './faults/table.ts';
import type { Round } from './plan.ts';
import { Random } from './random.ts';
import { Caller } from './workload/caller.ts';
import { untilRuns } from './workload/probe.ts';
import { countUnfinished, readRecords } from './world/observer.ts';
import { Witness } from './world/witness.ts';
import { World } from './world/world.ts';

/** After a fault everything has to be over by then; reached only by what is lost. */
const SETTLE_MS = 90_000;
/** What has to end with an execution does so within moments. */
const CLEAR_MS = 10_000;
/** Code gives a sign of life more often than that. */
const SILENCE_MS = 1_000;

export interface MachineOptions {
  rounds: readonly Round[];
  /** Whether there is a Docker engine for it. */
  docker: boolean;
  /** Tells a person how it goes, a line at a time. */
  say: (text: string) => void;
  /** Ends it after the round that goes on. */
  signal: AbortSignal;
}

/** Runs all rounds in one world. @returns what was found, and what stayed when all was stopped */
export async function runMachine({ rounds, docker, say, signal }: MachineOptions): Promise<{
  verdicts: Verdict[];
  left: string[];
}> {
  const world = await World.start({ replicas: 2, agents: 3, docker });
  const verdicts: Verdict[] = [];
  try {
    for (const round of rounds) {
      if (signal.aborted) break;
      const startMs = performance.now();
      const told: string[] = [];
      const verdict = await runRound(world, round, (text) => told.push(text));
      verdicts.push(verdict);
      const tookS = ((performance.now() - startMs) / 1000).toFixed(1);
      const what = told.length === 0 ? round.fault : `${round.fault} (${told.join(', ')})`;
      say(`round ${round.number} of ${rounds.length}, ${what}: ${tookS} s, ${verdict.findings.length} findings`);
      for (const { offence, count, message } of verdict.findings) say(`  ${offence} (${count}): ${message}`);
      if (verdict.findings.length > 0) say(`  logs: ${world.keepLogs(`${round.number}-${round.fault}`)}`);
    }
  } catch (error) {
    say(world.lastLogs());
    await world.stop().catch(() => undefined);
    throw error;
  }
  return { verdicts, left: await world.stop() };
}

/** Runs one round, and says what the auditor found. */
export async function runRound(world: World, round: Round, say: (text: string) => void): Promise<Verdict> {
  const fault = FAULTS[round.fault];
  if (fault === undefined) throw new Error(`there is no fault "${round.fault}"`);
  return audit(await gatherRound(world, round, fault, say));
}

/** Runs the executions of a round with the fault in the middle, and gathers what everybody says of them afterwards. */
export async function gatherRound(
  world: World,
  round: Round,
  fault: Fault,
  say: (text: string) => void,
): Promise<RoundEvidence> {
  const caller = new Caller({ ...world.surroundings, clients: () => world.clients() });
  const givenUp = new AbortController();
  const calls = round.executions.map(async (plan) => {
    await delay(plan.arrivalMs);
    return await caller.ask(plan, givenUp.signal);
  });
  const answered = Promise.all(calls);
  answered.catch(() => undefined);
  await delay(round.injectionMs);
  const injectedAtMs = Witness.nowMs();
  const hit = await fault.run({ world, random: new Random(round.seed), say });
  const deadlineMs = performance.now() + SETTLE_MS;
  const timer = setTimeout(() => givenUp.abort(new Error('the round is over')), SETTLE_MS);
  const recoveryMs = await recovery(world, round, hit, givenUp.signal);
  const answers = await answered.finally(() => clearTimeout(timer));
  const endedByThemselves = await world.restore();
  const keys = round.executions.map(({ key }) => key);
  await settled(Math.max(CLEAR_MS, deadlineMs - performance.now()), async () => {
    return (await countUnfinished(world.sql, keys)) === 0;
  });
  await settled(CLEAR_MS, () => world.orphanProcesses().length === 0 && world.callContainers().length === 0);
  const lastMark = () => Math.max(0, ...keys.flatMap((key) => world.witness.marksOf(key).map(({ timeMs }) => timeMs)));
  await settled(CLEAR_MS, () => Witness.nowMs() - lastMark() > SILENCE_MS);
  const quietAtMs = Witness.nowMs() - SILENCE_MS;
  const records = await readRecords(world.sql, keys);
  const executions = round.executions.map(
    (plan, i): ExecutionEvidence => ({
      plan,
      answer: answers[i],
      records: records.get(plan.key) ?? [],
      marks: world.witness.marksOf(plan.key),
    }),
  );
  return {
    fault: round.fault,
    allowance: fault,
    injectedAtMs,
    quietAtMs,
    executions,
    orphanProcesses: world.orphanProcesses(),
    orphanContainers: world.callContainers(),
    recoveryMs,
    endedByThemselves,
  };
}

/** From now until everything that was hit has run an execution. */
async function recovery(
  world: World,
  { number, fault }: Round,
  hit: readonly string[],
  givenUp: AbortSignal,
): Promise<number | undefined> {
  const startMs = performance.now();
  const selectors = hit.length === 0 ? [''] : hit;
  const name = `${number}-${fault}`;
  const ran = await untilRuns(() => world.clients(), selectors, name, givenUp);
  return ran ? performance.now() - startMs : undefined;
}

/** Waits until something is so, or long enough. */
async function settled(deadlineMs: number, look: () => Promise<boolean> | boolean): Promise<void> {
  await until('', look, { deadlineMs }).catch(() => undefined);
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
