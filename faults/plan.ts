import type { ExecutionPlan, Kind } from './execution-plan.ts';
import { Random } from './random.ts';
import { planSchedules, type SchedulePlan } from './schedule-plan.ts';
import { jobsOf, LARGEST_RUN, planWorkflow, type WorkflowPlan } from './workflow-plan.ts';

/** A part of a run: executions, and one fault in the middle of them. */
export interface Round {
  number: number;
  fault: string;
  /** Decides what the fault does. */
  seed: number;
  /** When the fault begins, from the beginning of the round. */
  injectionMs: number;
  executions: ExecutionPlan[];
  /** Their executions come on top of those. */
  workflows: WorkflowPlan[];
  /** What they start comes on top of both. */
  schedules: SchedulePlan[];
}

export interface PlanOptions {
  seed: number;
  /** Those that are asked for, and those that the nodes of workflows need. */
  executions: number;
  faults: readonly string[];
  /** Kinds that can be run here. */
  kinds: readonly Kind[];
}

/** Enough that every kind meets the fault, few enough for a machine with two cores. */
const EXECUTIONS_IN_A_ROUND = 25;
/** One run of a workflow, which takes about four, for so many executions. */
const EXECUTIONS_FOR_A_RUN = 12;
/** Executions arrive for so long; faults begin in the first half. */
const ARRIVALS_MS = 5_000;
const FIRST_INJECTION_MS = 1_000;
/** Longer than the lease: an attempt may still run when it is given to another agent. */
const LONGEST_RUN_MS = 20_000;
const WEIGHTS: Readonly<Record<Kind, number>> = { inline: 10, command: 5, venv: 4, docker: 4, container: 2 };
/** Kinds whose code is told the number of its attempt. */
const KNOWS_ITS_ATTEMPT: readonly Kind[] = ['inline', 'venv', 'docker'];

/** The rounds of a run: all faults in turn, in an order and with executions that the seed decides. */
export function makePlan({ seed, executions, faults, kinds }: PlanOptions): Round[] {
  const random = new Random(seed);
  const count = Math.min(executions, Math.max(faults.length, Math.round(executions / EXECUTIONS_IN_A_ROUND)));
  let order: string[] = [];
  return Array.from({ length: count }, (_, i): Round => {
    if (order.length === 0) order = random.shuffled(faults);
    const number = i + 1;
    const size = Math.floor((executions * number) / count) - Math.floor((executions * i) / count);
    const round = {
      number,
      fault: order.shift() ?? '',
      seed: random.integer(0, 2 ** 31 - 1),
      injectionMs: random.integer(FIRST_INJECTION_MS, ARRIVALS_MS / 2),
    };
    const name = `${seed}-${number}`;
    const workflows = planWorkflows(random, name, size, kinds);
    const alone = size - workflows.flatMap(jobsOf).length;
    const plans = Array.from({ length: alone }, (_, n) => planExecution(random, `${name}-${n + 1}`, kinds));
    // By numbers of their own: the executions of a seed stay what they are.
    const schedules = planSchedules(new Random(round.seed), name, kinds);
    return { ...round, executions: plans, workflows, schedules };
  });
}

/** @param size executions of the round */
function planWorkflows(random: Random, round: string, size: number, kinds: readonly Kind[]): WorkflowPlan[] {
  const count = size < LARGEST_RUN ? 0 : Math.max(1, Math.floor(size / EXECUTIONS_FOR_A_RUN));
  return Array.from({ length: count }, (_, n) =>
    planWorkflow(random, { key: `${round}-w${n + 1}`, kinds, lastArrivalMs: ARRIVALS_MS }),
  ).filter((plan) => plan !== undefined);
}

function planExecution(random: Random, key: string, kinds: readonly Kind[]): ExecutionPlan {
  const kind = random.weighted(Object.fromEntries(kinds.map((name) => [name, WEIGHTS[name]])) as Record<Kind, number>);
  const isShort = random.chance(0.6);
  const isChatty = random.chance(0.3);
  const isSilent = !isChatty && random.chance(0.3);
  const retries = random.chance(0.75);
  return {
    key,
    kind,
    way: random.weighted({ execute: 2, follow: 2, create: 3 }),
    arrivalMs: random.integer(0, ARRIVALS_MS),
    runMs: isShort ? random.integer(0, 300) : random.integer(2_000, LONGEST_RUN_MS),
    lines: isSilent ? 0 : isChatty ? random.integer(500, 3_000) : random.integer(1, 20),
    lineBytes: random.integer(20, 120),
    failures: retries && KNOWS_ITS_ATTEMPT.includes(kind) && random.chance(0.15) ? random.integer(1, 2) : 0,
    retries,
    isFlaky: false,
    daemon: kind !== 'container' && random.chance(0.2),
  };
}
