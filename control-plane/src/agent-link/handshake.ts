import { createPublicKey, verify } from 'node:crypto';
import { toBinary } from '@bufbuild/protobuf';
import { HarrierError, MAX_AGENT_SLOTS, parseHostPort, signedBytes } from '@harrier/shared';
import { HardwareSchema } from '@harrier/shared/gen/agent';
import type { EnvironmentSupport, Hello } from '@harrier/shared/gen/link';
import { hashSecret } from '../auth/secret.ts';
import { type AgentFacts, type AgentRow, joinAgent, readAgent, recordLink } from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { storedCapacity } from './capacity.ts';

const PUBLIC_KEY_BYTES = 32;
const MAX_NAME_LENGTH = 253;
const MAX_ENVIRONMENTS = 64;
const MAX_REASON_LENGTH = 1000;
const MAX_BOOT_ID_LENGTH = 64;
const MAX_ADDRESS_LENGTH = 300;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LABEL_KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)?$/;
/** DER of a SubjectPublicKeyInfo for Ed25519 (RFC 8410), up to the key itself. */
const ED25519_SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

/**
 * Checks who says hello, by its join token or by the key that it joined with, and records the link.
 * @returns the agent's row as it was before this link.
 * @throws HarrierError unauthenticated or invalid_argument; the message is for the agent's operator. `unavailable` when the
 * agent's process has linked by a later try: nobody listens to this link any more.
 */
export async function admitAgent(sql: Sql, hello: Hello, nonce: Uint8Array, replicaId: string): Promise<AgentRow> {
  const facts = checkFacts(hello);
  if (!isSignedBy(hello.publicKey, hello.signature, nonce)) {
    throw new HarrierError('unauthenticated', 'the signature of the hello is wrong');
  }
  const id = hello.agentId === '' ? await join(sql, hello, facts) : await identify(sql, hello);
  const before = await recordLink(sql, id, facts, replicaId);
  if (before === undefined) throw new HarrierError('unauthenticated', `agent ${id} was deleted`);
  if (before.is_late) throw new HarrierError('unavailable', 'a later link of the same agent process came first');
  return before;
}

async function join(sql: Sql, hello: Hello, facts: AgentFacts): Promise<string> {
  if (hello.joinToken === '') {
    throw new HarrierError('unauthenticated', 'a new agent needs a join token; make one with "harrier agents token"');
  }
  const tokenHash = hashSecret(hello.joinToken);
  const row = await joinAgent(sql, { ...facts, id: uuidv7(), publicKey: hello.publicKey, tokenHash });
  if (row === undefined) {
    throw new HarrierError(
      'unauthenticated',
      'the join token is unknown, expired or used; make one with "harrier agents token"',
    );
  }
  return row.id;
}

async function identify(sql: Sql, hello: Hello): Promise<string> {
  const row = UUID.test(hello.agentId) ? await readAgent(sql, hello.agentId) : undefined;
  if (row === undefined || !Buffer.from(row.public_key).equals(hello.publicKey)) {
    throw new HarrierError(
      'unauthenticated',
      `agent ${JSON.stringify(hello.agentId.slice(0, 64))} is not known by this key; it was deleted, or joined another control plane`,
    );
  }
  return row.id;
}

function checkFacts(hello: Hello): AgentFacts {
  if (hello.publicKey.length !== PUBLIC_KEY_BYTES) refuse('public_key', `has ${hello.publicKey.length} bytes, not 32`);
  if (hello.name === '' || hello.name.length > MAX_NAME_LENGTH || hello.name.includes('\0')) {
    refuse('name', `must have 1 to ${MAX_NAME_LENGTH} characters`);
  }
  if (hello.slots < 1 || hello.slots > MAX_AGENT_SLOTS) {
    refuse('slots', `must be from 1 to ${MAX_AGENT_SLOTS}, not ${hello.slots}`);
  }
  for (const [key, value] of Object.entries(hello.labels)) {
    if (!LABEL_KEY.test(key) || !LABEL_VALUE.test(value)) refuse('labels', `"${key}=${value}" is not a label`);
  }
  const { metricsAddress } = hello;
  if (metricsAddress !== '' && (metricsAddress.length > MAX_ADDRESS_LENGTH || !isAddress(metricsAddress))) {
    refuse('metrics_address', `must be HOST:PORT, not ${JSON.stringify(metricsAddress.slice(0, MAX_ADDRESS_LENGTH))}`);
  }
  const hardware = hello.hardware === undefined ? new Uint8Array() : toBinary(HardwareSchema, hello.hardware);
  return {
    name: hello.name,
    labels: hello.labels,
    version: hello.version.replaceAll('\0', ''),
    hardware,
    isolation: hello.isolation?.level ?? 0,
    slots: hello.slots,
    capacity: storedCapacity(hello.capacity),
    ...environmentFacts(hello.environments),
    instanceId: hello.instanceId.replaceAll('\0', ''),
    bootId: hello.bootId.replaceAll('\0', '').slice(0, MAX_BOOT_ID_LENGTH),
    metricsAddress,
    dial: Math.max(0, Number(hello.dial)),
  };
}

/** The environments that an agent says to have, as they are stored. */
export function environmentFacts(
  support: EnvironmentSupport | undefined,
): Pick<AgentFacts, 'environments' | 'unavailableEnvironments'> {
  const clean = (text: string) => text.replaceAll('\0', '').slice(0, MAX_REASON_LENGTH);
  const unavailable = Object.entries(support?.unavailable ?? {}).slice(0, MAX_ENVIRONMENTS);
  return {
    environments: (support?.available ?? []).slice(0, MAX_ENVIRONMENTS).map(clean),
    unavailableEnvironments: Object.fromEntries(unavailable.map(([name, reason]) => [clean(name), clean(reason)])),
  };
}

function refuse(field: string, problem: string): never {
  throw new HarrierError('invalid_argument', `hello.${field} ${problem}`, { field: `hello.${field}` });
}

/** A name or an address of a host, and a port: nothing that Prometheus could read as more than that. */
function isAddress(text: string): boolean {
  const parsed = parseHostPort(text);
  return parsed !== undefined && parsed.port > 0 && /^[A-Za-z0-9._:-]+$/.test(parsed.host);
}

function isSignedBy(publicKey: Uint8Array, signature: Uint8Array, nonce: Uint8Array): boolean {
  try {
    const key = createPublicKey({
      key: Buffer.concat([ED25519_SPKI_PREFIX, publicKey]),
      format: 'der',
      type: 'spki',
    });
    return verify(null, signedBytes(nonce, publicKey), key, signature);
  } catch {
    return false;
  }
}
