import { hostname, totalmem } from 'node:os';
import { create, toBinary } from '@bufbuild/protobuf';
import { HardwareSchema } from '@harrier/shared/gen/agent';
import { expect, test } from 'vitest';
import { createHostLoadReader } from './host-load.ts';
import { createProbes } from './probes.ts';

const NO_CARDS = { refresh: async () => {}, list: () => [] };

test('this host is described', async () => {
  const facts = await Promise.all(Object.values(createProbes('/usr/bin:/bin', NO_CARDS)).map((probe) => probe.read()));
  const hardware = create(HardwareSchema, Object.assign({}, ...facts));
  expect(toBinary(HardwareSchema, hardware).length).toBeGreaterThan(0);
  expect(hardware.cpu?.logicalCores).toBeGreaterThan(0);
  expect(hardware.cpu?.model).not.toBe('');
  expect(hardware.memoryBytes).toBe(BigInt(totalmem()));
  expect(hardware.os).toMatchObject({ platform: process.platform, hostname: hostname() });
  expect(hardware.os?.distribution).not.toBe('');
  expect(hardware.disks.length).toBeGreaterThan(0);
  expect(hardware.bootId).not.toBe('');
  expect(hardware.tools.map(({ name }) => name)).toContain('python');
});

test('the load of this host is within its bounds', () => {
  const load = createHostLoadReader()(7);
  expect(load.cpuRatio).toBeGreaterThanOrEqual(0);
  expect(load.cpuRatio).toBeLessThanOrEqual(1);
  expect(load.memoryAvailableBytes).toBeGreaterThan(0n);
  expect(load.spoolBytes).toBe(7n);
});
