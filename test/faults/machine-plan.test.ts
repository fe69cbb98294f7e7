import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Kind } from '../../faults/execution-plan.ts';
import { expectedRunOutput } from '../../faults/expected.ts';
import { makePlan, type Round } from '../../faults/plan.ts';
import type { SchedulePlan } from '../../faults/schedule-plan.ts';
import { jobsOf, nodesBefore, pathOf } from '../../faults/workflow-plan.ts';

const KINDS: readonly Kind[] = ['inline', 'command', 'venv', 'docker', 'container'];
const FAULTS = ['agent-kill', 'replica-kill', 'partition-long', 'drain'];

const options = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  executions: fc.integer({ min: 1, max: 300 }),
  faults: fc.uniqueArray(fc.constantFrom(...FAULTS), { minLength: 1 }),
  kinds: fc.uniqueArray(fc.constantFrom(...KINDS), { minLength: 1 }),
});

test('a seed decides everything: the same plan again, another one for another seed', () => {
  fc.assert(
    fc.property(options, (given) => {
      expect(makePlan(given)).toEqual(makePlan(given));
    }),
  );
  const given = { executions: 100, faults: FAULTS, kinds: KINDS };
  expect(makePlan({ ...given, seed: 1 })).not.toEqual(makePlan({ ...given, seed: 2 }));
});

const jobsOfAll = (rounds: readonly Round[]) => rounds.flatMap(({ workflows }) => workflows.flatMap(jobsOf));

test('a plan has as many executions as were asked for, each with a key of its own, of the kinds that there are', () => {
  fc.assert(
    fc.property(options, (given) => {
      const rounds = makePlan(given);
      const executions = [...rounds.flatMap((round) => round.executions), ...jobsOfAll(rounds)];
      expect(executions).toHaveLength(given.executions);
      expect(new Set(executions.map(({ key }) => key)).size).toBe(given.executions);
      for (const { kind } of executions) expect(given.kinds).toContain(kind);
    }),
  );
});

test('every fault has its turn as often as any other, or once more', () => {
  fc.assert(
    fc.property(options, (given) => {
      const rounds = makePlan(given);
      const turns = given.faults.map((name) => rounds.filter(({ fault }) => fault === name).length);
      expect(Math.max(...turns) - Math.min(...turns)).toBeLessThanOrEqual(1);
      if (given.executions >= given.faults.length) expect(Math.min(...turns)).toBeGreaterThan(0);
    }),
  );
});

test('what is expected to fail by itself may be tried again', () => {
  fc.assert(
    fc.property(options, (given) => {
      for (const { failures, retries } of makePlan(given).flatMap((round) => round.executions)) {
        expect(failures === 0 || retries).toBe(true);
      }
    }),
  );
});

test('workflows are among the executions of every round that has room for one, in every shape', () => {
  const rounds = makePlan({ seed: 5, executions: 2_000, faults: FAULTS, kinds: KINDS });
  const workflows = rounds.flatMap((round) => round.workflows);
  for (const round of rounds) expect(round.workflows.length).toBeGreaterThan(0);
  const kinds = new Set(workflows.flatMap(({ nodes }) => nodes.map(({ kind }) => kind)));
  expect([...kinds].sort()).toEqual(['condition', 'map', 'run', 'signal', 'wait']);
  expect(workflows.some((plan) => jobsOf(plan).some(({ isFlaky }) => isFlaky))).toBe(true);
  expect(workflows.flatMap(jobsOf).length).toBeLessThan(1_000);
  expect(makePlan({ seed: 5, executions: 100, faults: FAULTS, kinds: ['command'] })[0]?.workflows).toEqual([]);
});

test('every round has schedules of its own, and there are all policies', () => {
  const rounds = makePlan({ seed: 5, executions: 2_000, faults: FAULTS, kinds: KINDS });
  const schedules = rounds.flatMap((round) => round.schedules);
  expect(schedules).toHaveLength(2 * rounds.length);
  expect(new Set(schedules.map(({ key }) => key)).size).toBe(schedules.length);
  const all = (choice: (plan: SchedulePlan) => string) => [...new Set(schedules.map(choice))].sort();
  expect(all(({ overlap }) => overlap)).toEqual(['allow', 'cancel', 'queue', 'skip']);
  expect(all(({ misfire }) => misfire)).toEqual(['all', 'once', 'skip']);
  expect(all(({ times }) => times)).toEqual(['cron', 'interval']);
  // Code that is told of its time: where there is none, runs of workflows alone.
  expect(makePlan({ seed: 5, executions: 100, faults: FAULTS, kinds: ['command'] })[0]?.schedules).toHaveLength(1);
});

test('the plan of a workflow says what comes before what, and what comes of it', () => {
  const workflows = makePlan({ seed: 6, executions: 2_000, faults: FAULTS, kinds: KINDS }).flatMap(
    (round) => round.workflows,
  );
  for (const plan of workflows) {
    const [first, ...others] = plan.nodes.filter(({ isReached, jobs }) => isReached && jobs.length > 0);
    expect(nodesBefore(plan, first?.id ?? '')).toEqual([]);
    for (const { id } of others) expect(nodesBefore(plan, id)).toContain(first);
    const reached = plan.nodes.filter(({ kind, isReached }) => isReached && !['wait', 'condition'].includes(kind));
    expect(Object.keys(expectedRunOutput(plan))).toEqual(reached.map(({ id }) => id));
    for (const { id, jobs } of plan.nodes)
      for (const job of jobs) expect(pathOf(plan, job)).toMatch(new RegExp(`^${id}`));
  }
});
