import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { testdataPath } from '../test-support/testdata.ts';
import { NvidiaSmi } from './nvidia-smi.ts';

/** A driver's tool that does what a shell script says. */
function toolOf(script: string, timeoutMs?: number): { tool: NvidiaSmi; directory: string } {
  const directory = tempDir();
  standInTool(directory, 'nvidia-smi', script);
  return { tool: new NvidiaSmi(`${directory}:/usr/bin:/bin`, timeoutMs), directory };
}

const T4 = testdataPath('nvidia-515-t4.xml');

describe('a look', () => {
  test('at a host without the tool finds no driver', async () => {
    const tool = new NvidiaSmi(tempDir());
    expect(await tool.look([])).toEqual({ kind: 'absent' });
    expect(await tool.figures()).toEqual({ kind: 'absent' });
  });

  test.each([['exit 6'], ['exit 0']])('at a host without cards finds none (%s)', async (end) => {
    const { tool } = toolOf(`echo 'No devices were found'; ${end}`);
    expect(await tool.look([])).toMatchObject({ kind: 'answered', value: { cards: [] } });
    expect(await tool.figures()).toMatchObject({ kind: 'answered', value: [] });
  });

  test('names the instances of a divided card by the list', async () => {
    const { tool } = toolOf(
      `case "$*" in '-q -x') cat ${testdataPath('nvidia-535-a100-mig.xml')};; -L) cat ${testdataPath('nvidia-535-a100-mig.list')};; esac`,
    );
    const answer = await tool.look([]);
    const instances = answer.kind === 'answered' ? answer.value.cards[0]?.instances : [];
    expect(instances).toMatchObject([
      { uuid: 'MIG-53500000-0000-5000-8000-000000000003', profile: '2g.20gb', gpuInstance: 3 },
      { uuid: 'MIG-53500000-0000-5000-8000-000000000004', profile: '2g.20gb', gpuInstance: 4 },
    ]);
  });

  test('takes an answer that comes with a complaint of another card', async () => {
    const { tool } = toolOf(
      `echo 'Unable to determine the device handle for GPU1: 0000:44:00.0: Unknown Error' >&2; cat ${T4}; exit 15`,
    );
    expect(await tool.look([])).toMatchObject({
      kind: 'answered',
      value: { cards: [{ model: 'Tesla T4' }] },
      complaint: 'Unable to determine the device handle for GPU1: 0000:44:00.0: Unknown Error',
    });
  });

  test('asks for each card when one of them spoils the whole answer', async () => {
    const { tool } = toolOf(
      `case "$*" in '-i GPU-51500000-0000-4000-8000-000000000000 -q -x') cat ${T4};; *) echo 'Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.  Reboot the system to recover this GPU'; exit 15;; esac`,
    );
    const known = [
      { uuid: 'GPU-51500000-0000-4000-8000-000000000000', index: 4 },
      { uuid: 'GPU-lost', index: 5 },
    ];
    expect(await tool.look(known)).toMatchObject({
      kind: 'answered',
      value: { cards: [{ index: 4, model: 'Tesla T4' }], driverVersion: '515.105.01' },
      complaint: expect.stringContaining('GPU is lost'),
    });
    expect(await tool.look([])).toMatchObject({ kind: 'silent', reason: expect.stringContaining('exit code 15') });
  });

  test.each([
    ["echo 'NVIDIA-SMI has failed' ; exit 9", 'nvidia-smi ended with exit code 9: NVIDIA-SMI has failed'],
    ['head -c 3000 /dev/urandom', 'nvidia-smi printed what cannot be read'],
    [`head -c 1000 ${T4}`, 'nvidia-smi printed what cannot be read'],
    ['kill -9 $$', 'nvidia-smi was killed'],
    ['yes "<nvidia_smi_log>"', 'nvidia-smi printed more than 8 MiB'],
  ])('at a driver that fails or prints garbage tells what it was: %s', async (script, reason) => {
    const { tool } = toolOf(script);
    expect(await tool.look([])).toMatchObject({ kind: 'silent', reason: expect.stringContaining(reason) });
  });

  test('at a driver that hangs ends, and works when the driver does again', async () => {
    const { tool, directory } = toolOf('exec sleep 1000', 300);
    expect(await tool.look([])).toEqual({ kind: 'silent', reason: 'nvidia-smi did not answer in time' });
    standInTool(directory, 'nvidia-smi', `cat ${T4}`);
    const patient = new NvidiaSmi(`${directory}:/usr/bin:/bin`);
    expect(await patient.look([])).toMatchObject({ kind: 'answered' });
  });

  test('waits for the question before it: a slow driver is asked one thing at a time', async () => {
    const { tool, directory } = toolOf(
      `echo begin >> $0.log; sleep 0.1; case "$*" in '-q -x') cat ${T4};; *) echo '0, GPU-a, 1, 1, 1, 1, 1, 1';; esac; echo end >> $0.log`,
    );
    await Promise.all([tool.look([]), tool.figures(), tool.look([])]);
    const log = readFileSync(join(directory, 'nvidia-smi.log'), 'utf8').trim().split('\n');
    expect(log).toEqual(['begin', 'end', 'begin', 'end', 'begin', 'end']);
  });
});

describe('the figures', () => {
  test('of a driver that does not know all of them are not asked for', async () => {
    const { tool } = toolOf(`echo 'Field "power.draw" is not a valid field to query.'; exit 2`);
    expect(await tool.figures()).toMatchObject({ kind: 'answered', value: 'unsupported' });
  });

  test('come with what is complained of', async () => {
    const { tool } = toolOf(
      `echo 'Unable to determine the device handle for GPU1: x: Unknown Error'; echo '0, GPU-a, 1, 1, 1, 1, 1, 1'; exit 15`,
    );
    expect(await tool.figures()).toMatchObject({
      kind: 'answered',
      value: [{ uuid: 'GPU-a' }],
      complaint: expect.stringContaining('GPU1'),
    });
  });
});
