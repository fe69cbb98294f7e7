import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { TestSlurm } from '../support/slurm.ts';
import { python, SlurmAgent } from '../support/slurm-agent.ts';
import { directory } from '../support/workspace.ts';

// Any device stands in for a card. The last one is not Slurm's.
const gpuDevRoot = directory('gd');
for (const name of ['nvidiactl', 'nvidia-uvm', 'nvidia4', 'nvidia7', 'nvidia8']) {
  symlinkSync('/dev/null', join(gpuDevRoot, name));
}
/** By the number that Slurm gives them: their place in its configuration. */
const CARDS: Record<string, string> = { 0: 'nvidia4', 1: 'nvidia7' };
const slurm = await TestSlurm.start({ gpus: Object.values(CARDS).map((name) => join(gpuDevRoot, name)) });
afterAll(() => slurm.stop());

const SEEN = `import os
def handler(input):
    nodes = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
    for name in nodes:
        os.close(os.open("/dev/" + name, os.O_RDWR))
    return {"nodes": nodes, "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "gpus": os.environ.get("SLURM_JOB_GPUS")}
`;
const gpus = (count: number) => ({ slurm: { gres: `gpu:${count}` } });

test('a job sees the cards that Slurm has given it, and no others', async () => {
  const agent = await SlurmAgent.start(slurm, { gpuDevRoot });
  const first = await agent.run('one', { ...python(SEEN), ...gpus(1) });
  expect(first, first.error?.message).toMatchObject({ outcome: 'succeeded' });
  const one = JSON.parse(first.result);
  expect(one).toEqual({ nodes: ['nvidia-uvm', CARDS[one.gpus], 'nvidiactl'], visible: '0', gpus: expect.any(String) });
  const both = JSON.parse((await agent.run('both', { ...python(SEEN), ...gpus(2) })).result);
  expect(both).toEqual({ nodes: ['nvidia-uvm', 'nvidia4', 'nvidia7', 'nvidiactl'], visible: '0,1', gpus: '0,1' });
  const none = JSON.parse((await agent.run('none', python(SEEN))).result);
  expect(none).toMatchObject({ nodes: [], gpus: null });
});

test('jobs that run at the same time have cards of their own', async () => {
  const agent = await SlurmAgent.start(slurm, { gpuDevRoot });
  const held = SEEN.replace(
    '    return',
    '    import time\n    print(nodes, flush=True)\n    time.sleep(3)\n    return',
  );
  for (const name of ['left', 'right']) agent.start(name, { ...python(held), ...gpus(1) });
  await agent.untilLogged('left', 'nvidia');
  await agent.untilLogged('right', 'nvidia');
  const seen = [await agent.end('left'), await agent.end('right')].map(({ result }) => JSON.parse(result).gpus);
  expect(seen.toSorted()).toEqual(['0', '1']);
});

test('a node without the device nodes of the cards refuses, with its name and what is missing', async () => {
  rmSync(join(gpuDevRoot, 'nvidia-uvm'));
  const agent = await SlurmAgent.start(slurm, { gpuDevRoot });
  const ended = await agent.run('missing', { ...python(SEEN), ...gpus(1) });
  expect(ended).toMatchObject({ outcome: 'failed', code: 'SUBMIT_FAILED' });
  expect(ended.error?.message).toContain(
    `${join(gpuDevRoot, 'nvidia-uvm')} cannot be opened: No such file or directory`,
  );
});
