import { randomBytes, randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { uuidv7 } from '../uuid.ts';
import { insertJoinToken, joinAgent, listAgentEnvironments, recordEnvironments, recordLink } from './agents.ts';
import { ensureTenant } from './api-keys.ts';

const { cold: sql } = await startDatabase();

test('what an agent has lost is remembered for a while, until it has it again', async () => {
  const tenantId = await ensureTenant(sql, uuidv7(), 'default');
  const tokenHash = randomBytes(32);
  await insertJoinToken(sql, { id: uuidv7(), tenantId, secretHash: tokenHash, ttlMs: 60_000 });
  const facts = {
    name: 'one',
    labels: {},
    version: '1.0.0',
    hardware: new Uint8Array(),
    isolation: 1,
    slots: 1,
    capacity: null,
    environments: ['inline', 'docker', 'venv'],
    unavailableEnvironments: {},
    instanceId: '',
    bootId: '',
    metricsAddress: '',
    dial: 0,
  };
  const { id = '' } = (await joinAgent(sql, { ...facts, id: uuidv7(), publicKey: randomBytes(32), tokenHash })) ?? {};
  const lately = async (ms = 60_000) => (await listAgentEnvironments(sql, tenantId, ms))[0]?.lately.toSorted();
  expect(await lately()).toEqual([]);

  await recordEnvironments(sql, id, ['inline', 'venv'], { docker: 'ended' });
  expect(await lately()).toEqual(['docker']);
  await recordLink(sql, id, { ...facts, environments: ['inline'] }, randomUUID());
  expect(await lately()).toEqual(['docker', 'venv']);
  expect(await lately(0)).toEqual([]);
  await recordEnvironments(sql, id, ['inline', 'docker'], {});
  expect(await lately()).toEqual(['venv']);
});
