import { describe, expect, test } from 'vitest';
import { WorkflowNode_Join as Join, WorkflowNode_Map_Mode as Mode } from '../gen/harrier/v1/workflow_pb.ts';
import { parseWorkflowFile } from './parse-workflow-file.ts';

const TEXT = `name: w
version: "1.0.0"
nodes:
  - id: a
    run: { module: m }
    join: all_done
    input: { join: any }
  - id: b
    map:
      items: input.list
      mode: collect
      run: { module: m }
`;

describe('a workflow file', () => {
  test('is read, with words in small letters, and knows where its parts stand', () => {
    const parsed = parseWorkflowFile(TEXT);
    if ('problems' in parsed) throw new Error(JSON.stringify(parsed.problems));
    const [a, b] = parsed.workflow.nodes;
    expect(a).toMatchObject({
      join: Join.ALL_DONE,
      input: { kind: { value: { fields: { join: { kind: { value: 'any' } } } } } },
    });
    expect(b?.kind.value).toMatchObject({ mode: Mode.COLLECT, items: 'input.list' });
    expect(parsed.positionOf('nodes[1].map.items')).toEqual({ line: 10, column: 14 });
    expect(parsed.positionOf('nodes[1].map.concurrency'), 'of what is not there').toEqual({ line: 10, column: 7 });
    expect(parsed.positionOf('edges')).toBeUndefined();
  });

  test.each([
    [
      'nodes: [',
      [expect.objectContaining({ position: expect.anything(), message: expect.stringContaining('not YAML') })],
    ],
    ['- 1', [{ position: undefined, message: 'a workflow is a map with `name`, `version` and `nodes`' }]],
  ])('%s', (text, problems) => {
    expect(parseWorkflowFile(text)).toEqual({ problems: expect.arrayContaining(problems) });
  });

  test('with an unknown key says where', () => {
    const parsed = parseWorkflowFile(TEXT.replace('mode: collect', 'modus: collect'));
    expect(parsed).toMatchObject({
      problems: [
        { position: undefined },
        { position: { line: 8, column: 5 }, message: expect.stringMatching(/nodes\[1\]: .*modus/) },
      ],
    });
  });
});
