import { create } from '@bufbuild/protobuf';
import {
  WorkflowRunNode_State as State,
  type WorkflowRunNode,
  WorkflowRunNodeSchema,
} from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { drawProgress, progressLines } from './progress.ts';

const node = (path: string, state: State, more: Partial<WorkflowRunNode> = {}) =>
  create(WorkflowRunNodeSchema, { path, state, kind: 'run', ...more } as never);

test('progress is drawn over what was drawn, and says what a node waits for and why it failed', async () => {
  const written: string[] = [];
  const nodes = [
    node('a', State.SUCCEEDED),
    node('b', State.WAITING, { waitingReason: 'for a signal' }),
    node('c', State.FAILED, { tries: 2, error: { message: 'no\u001b[2J\nat all' } as never }),
  ];
  const drawn = await drawProgress(nodes, 2, async (text) => void written.push(text));
  expect(drawn).toBe(3);
  expect(written.join('')).toBe(
    '\x1b[2A\x1b[2K✔ a  run\n\x1b[2K◌ b  run, waits for a signal\n\x1b[2K✘ c  run, try 2, no at all\n',
  );
});

test('of many nodes those are shown that run or failed', () => {
  const many = Array.from({ length: 100 }, (_, i) => node(`n${i}`, i === 90 ? State.RUNNING : State.SUCCEEDED));
  const lines = progressLines(many);
  expect(lines).toHaveLength(31);
  expect(lines).toContain('▶ n90  run');
  expect(lines.at(-1)).toBe('… and 70 more that are over or wait');
});
