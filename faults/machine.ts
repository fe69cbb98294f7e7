import { until } from '../test/support/wait.ts';
import { audit, type Verdict } from './auditor.ts';
import type {
  ExecutionEvidence,
  ExecutionRecord,
  Mark,
  RoundEvidence,
  RunEvidence,
  ScheduleEvidence,
} from './evidence.ts';
import type { Fault } from './faults/fault.ts';
import { FAULTS } from './faults/table.ts';
import type { Round } from './plan.ts';
import { Random } from './random.ts';
import { type SchedulePlan, witnessPrefix } from './schedule-plan.ts';
import { Caller } from './workload/caller.ts';
import { readLog } from './workload/log-reader.ts';
import { untilRuns } from './workload/probe.ts';
import { RunCaller } from './workload/run-caller.ts';
import { ScheduleCaller } from './workload/schedule-caller.ts';
import { countUnfinished, countUnsettled, readRecords, readRunRecords, readSchedules } from './world/observer.ts';
import { Witness } from './world/witness.ts';
import { World } from './world/world.ts';

/** After a fault everything has to be over by then; reached only by what is lost. */
const SETTLE_MS = 90_000;
/** What has to end with an execution does so within moments. */
const CLEAR_MS = 10_000;
/** For the logs of a round; the parts have settled by then. */
const READ_MS = 60_000;
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
  const surroundings = { ...world.surroundings, clients: () => world.clients() };
  const [caller, runCaller] = [new Caller(surroundings), new RunCaller(surroundings)];
  const scheduleCaller = new ScheduleCaller(surroundings);
  const givenUp = new AbortController();
  const arrivals = Promise.withResolvers<void>();
  const calls = round.executions.map(async (plan) => {
    await arrivals.promise;
    await delay(plan.arrivalMs);
    return await caller.ask(plan, givenUp.signal);
  });
  const runCalls = round.workflows.map(async (plan) => {
    await arrivals.promise;
    await delay(plan.arrivalMs);
    return await runCaller.ask(plan, givenUp.signal);
  });
  const scheduleCalls = round.schedules.map(async (plan) => {
    await arrivals.promise;
    return await scheduleCaller.make(plan, givenUp.signal);
  });
  const answered = Promise.all([Promise.all(calls), Promise.all(runCalls), Promise.all(scheduleCalls)]);
  answered.catch(() => undefined);
  if (fault.isFirst !== true) {
    arrivals.resolve();
    await delay(round.injectionMs);
  }
  let injectedAtMs = Witness.nowMs();
  const strike = () => {
    injectedAtMs = Witness.nowMs();
  };
  let hasStruck = true;
  const miss = () => {
    hasStruck = false;
    say('nothing to hit');
  };
  const hit = await fault.run({ world, random: new Random(round.seed), say, begin: arrivals.resolve, strike, miss });
  arrivals.resolve();
  const deadlineMs = performance.now() + SETTLE_MS;
  const timer = setTimeout(() => givenUp.abort(new Error('the round is over')), SETTLE_MS);
  const recoveryMs = await recovery(world, round, hit, givenUp.signal);
  const ended = Promise.all(
    round.schedules.map(async (plan, i) => {
      const answer = await scheduleCalls[i];
      if (answer !== undefined) await scheduleCaller.end(plan, answer, givenUp.signal);
    }),
  );
  ended.catch(() => undefined);
  const [answers, runAnswers, scheduleAnswers] = await answered
    .then(async (all) => {
      await ended;
      return all;
    })
    .finally(() => clearTimeout(timer));
  const endedByThemselves = await world.restore();
  const keys = round.executions.map(({ key }) => key);
  const runKeys = round.workflows.map(({ key }) => key);
  const scheduleKeys = round.schedules.map(({ key }) => key);
  const jobKeys = round.workflows.flatMap(({ nodes }) => nodes.flatMap(({ jobs }) => jobs.map(({ key }) => key)));
  await settled(Math.max(CLEAR_MS, deadlineMs - performance.now()), async () => {
    const unfinished = await countUnfinished(world.sql, keys, runKeys);
    return unfinished + (await countUnsettled(world.sql, scheduleKeys)) === 0;
  });
  await settled(CLEAR_MS, () => world.orphanProcesses().length === 0 && world.callContainers().length === 0);
  const lastMark = () => {
    const timeKeys = scheduleKeys.flatMap((key) => world.witness.keysWith(witnessPrefix(key)));
    const marks = [...keys, ...jobKeys, ...timeKeys].flatMap((key) => world.witness.marksOf(key));
    return Math.max(0, ...marks.map(({ timeMs }) => timeMs));
  };
  await settled(CLEAR_MS, () => Witness.nowMs() - lastMark() > SILENCE_MS);
  const quietAtMs = Witness.nowMs() - SILENCE_MS;
  const records = await readRecords(world.sql, keys);
  const runRecords = await readRunRecords(world.sql, runKeys);
  const scheduleRecords = await readSchedules(world.sql, scheduleKeys);
  const nodes = [...runRecords.values()].flat().flatMap((record) => record.executions);
  await readLogs(world, [...[...records.values()].flat(), ...nodes]);
  const marks = new Map(jobKeys.map((key) => [key, world.witness.marksOf(key)]));
  const runs = round.workflows.map(
    (plan, i): RunEvidence => ({ plan, answer: runAnswers[i], records: runRecords.get(plan.key) ?? [], marks }),
  );
  const schedules = round.schedules.map(
    (plan, i): ScheduleEvidence => ({
      ...{ plan, answer: scheduleAnswers[i], record: scheduleRecords.get(plan.key), marks: marksOfTimes(world, plan) },
    }),
  );
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
    hasStruck,
    injectedAtMs,
    quietAtMs,
    executions,
    runs,
    schedules,
    orphanProcesses: world.orphanProcesses(),
    orphanContainers: world.callContainers(),
    recoveryMs,
    endedByThemselves,
  };
}

function marksOfTimes({ witness }: World, { key }: SchedulePlan): Map<number, Mark[]> {
  const prefix = witnessPrefix(key);
  return new Map(
    witness.keysWith(prefix).map((name) => [Date.parse(name.slice(prefix.length)), witness.marksOf(name)]),
  );
}

/** Reads the logs as everybody does. */
async function readLogs(world: World, records: readonly ExecutionRecord[]): Promise<void> {
  const signal = AbortSignal.timeout(READ_MS);
  for (const record of records) {
    if (record.final) record.read = await readLog(() => world.clients(), record, signal);
  }
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
