import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { idleCard, idleInstance } from '../test-support/stand-in-cards.ts';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { GpuDevices } from './gpu-devices.ts';

const CARD = idleCard('GPU-a', { minor: 3 });
const DIVIDED = idleCard('GPU-b', { minor: 4, divided: true, instances: [idleInstance('MIG-b', 7)] });

function devicesWith(nodes: readonly string[], ldconfig = 'exit 0') {
  const devRoot = tempDir();
  for (const node of nodes) symlinkSync('/dev/null', join(devRoot, node));
  const searchPath = tempDir();
  standInTool(searchPath, 'ldconfig', ldconfig);
  const migMinorsPath = join(searchPath, 'mig-minors');
  writeFileSync(migMinorsPath, 'config 1\nmonitor 2\ngpu4/gi7/access 66\ngpu4/gi7/ci0/access 67\n');
  const cardOf = (uuid: string) => ({ 'GPU-a': CARD, 'MIG-b': DIVIDED })[uuid];
  return { devices: new GpuDevices({ cardOf, devRoot, searchPath, migMinorsPath }), devRoot };
}

const COMMON = ['nvidiactl', 'nvidia-uvm'];

test('a sandbox gets the nodes of its cards and those that all need', () => {
  const { devices, devRoot } = devicesWith([...COMMON, 'nvidia-uvm-tools', 'nvidia0', 'nvidia3']);
  expect(devices.access(['GPU-a'])).toEqual({
    uuids: ['GPU-a'],
    devices: ['nvidiactl', 'nvidia-uvm', 'nvidia3', 'nvidia-uvm-tools'].map((name) => {
      return { source: join(devRoot, name), target: `/dev/${name}` };
    }),
    libraries: [],
  });
});

test('an instance has its capabilities besides', () => {
  const { devices } = devicesWith([...COMMON, 'nvidia4', 'nvidia-caps']);
  expect(devices.access(['MIG-b'])).toContain('there is no device node');
  expect(devices.access(['MIG-b'])).toContain('nvidia-caps/nvidia-cap66');
});

test.each([
  [['nvidiactl', 'nvidia3'], 'GPU-a', 'nvidia-uvm; nvidia-modprobe makes it'],
  [COMMON, 'GPU-a', 'nvidia3; nvidia-modprobe makes it'],
  [COMMON, 'GPU-q', 'the driver names no device node of GPU GPU-q'],
])('what is missing is named: %o', (nodes, uuid, reason) => {
  expect(devicesWith(nodes).devices.access([uuid])).toContain(reason);
});

test('libraries of the driver that are elsewhere come along', async () => {
  const listed = (path: string) => `echo '	libcuda.so.1 (libc6,x86-64) => ${path}'`;
  const { devices } = devicesWith([...COMMON, 'nvidia3'], listed('/opt/nvidia/lib64/libcuda.so.1'));
  await devices.look();
  expect(devices.access(['GPU-a'])).toMatchObject({
    libraries: [{ source: '/opt/nvidia/lib64', target: '/opt/nvidia/lib64', writable: false }],
  });
  const system = devicesWith([...COMMON, 'nvidia3'], listed('/usr/lib/x86_64-linux-gnu/libcuda.so.1'));
  await system.devices.look();
  expect(system.devices.access(['GPU-a'])).toMatchObject({ libraries: [] });
});
