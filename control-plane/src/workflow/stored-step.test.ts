import { expect, test } from 'vitest';
import { restoreRun } from './restore.ts';
import { newInstance, newRun } from './run-state.ts';
import { charsOfStep, decodeInstance, encodeInstance, encodeStep } from './stored-step.ts';
import { graphOf } from './test-support/simulate.ts';

const graph = graphOf({ name: 'w', version: '1.0.0', nodes: [{ id: 'a', transform: { expression: '1' } }] });
const given = { tenantId: 't', replicaId: 'r' };
const counters = () => ({ revision: 4, logSequence: 7, stored: new WeakSet() });

test('a step has the sizes of its values, each of which is stored once', () => {
  const run = newRun({ id: 'run', graph, maxParallel: 1, timeoutMs: undefined });
  const output = { json: '"four"' };
  const a = { ...newInstance('a', ''), state: 'SUCCEEDED' as const, tries: 1, output, input: { json: '[]' } };
  const known = counters();
  const line = { level: 'INFO' as const, path: 'a', message: 'half \ud800 and \0', ms: 0 };
  const step = () =>
    encodeStep({ run, changed: [a], log: [line], ended: [], heard: [] }, { ...given, counters: known });
  const first = step();
  expect([charsOfStep(first), first.revision, first.log]).toEqual([
    8 + line.message.length,
    5,
    [{ sequence: 8, time: '1970-01-01T00:00:00.000Z', level: 2, path: 'a', message: 'half \ufffd and \ufffd' }],
  ]);
  expect([charsOfStep(step()), first.start_time]).toEqual([line.message.length, null]);
});

test('what is stored of a node that the graph does not have is not taken for one that it has', () => {
  const of = { id: 'run', graph, maxParallel: 1, timeoutMs: undefined, nextTurn: 1 };
  const gone = { ...newInstance('gone', ''), state: 'SUCCEEDED' as const, tries: 1 };
  expect(() => restoreRun(of, [newInstance('', undefined), gone])).toThrow('there is no node gone');
});

test('what cannot be in a run is not stored', () => {
  const run = newRun({ id: 'run', graph, maxParallel: 1, timeoutMs: undefined });
  const root = newInstance('', undefined);
  const step = { run, changed: [], log: [], ended: [], heard: [] };
  run.instances.set('', { ...root, state: 'SKIPPED' });
  expect(() => encodeStep(step, { ...given, counters: counters() })).toThrow('a run cannot be SKIPPED');
  run.instances.clear();
  expect(() => encodeStep(step, { ...given, counters: counters() })).toThrow('the run run has no root');
});

test.each(['a', 'm[3]', 'm[3].a', 'w.m[0].a[12]'])('%s is read as it was written', (path) => {
  const parent = /^(.*?)(\[\d+\]|\.?[a-z]+)$/.exec(path)?.[1] ?? '';
  const item = /\[(\d+)\]$/.exec(path)?.[1];
  const instance = { ...newInstance(path, parent, item === undefined ? undefined : Number(item)), tries: 2 };
  const row = { path, instance: encodeInstance(instance), input_json: null, output_json: null, execution_id: null };
  expect(decodeInstance(row)).toMatchObject({ path, parent, item: instance.item, tries: 2, state: 'PENDING' });
});
