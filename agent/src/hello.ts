import { create } from '@bufbuild/protobuf';
import { signedBytes, VERSION } from '@harrier/shared';
import type { Hardware, Isolation } from '@harrier/shared/gen/agent';
import { type Challenge, type Hello, HelloSchema } from '@harrier/shared/gen/link';
import type { AgentConfig } from './config.ts';
import type { Support } from './environment/environment-registry.ts';
import type { AgentIdentity } from './identity/agent-identity.ts';
import type { AttemptTable } from './job/attempt-table.ts';

/** The agent's answer to a challenge: who it is, what it is, and what it still holds. */
export function createHello(
  challenge: Challenge,
  dial: number,
  config: AgentConfig,
  identity: AgentIdentity,
  table: AttemptTable,
  hardware: Hardware,
  isolation: Isolation,
  environments: Support,
): Hello {
  return create(HelloSchema, {
    agentId: identity.agentId,
    joinToken: identity.agentId === '' ? config.joinToken : '',
    publicKey: identity.publicKey,
    signature: identity.sign(signedBytes(challenge.nonce, identity.publicKey)),
    name: config.name,
    version: VERSION,
    labels: config.labels,
    hardware,
    isolation,
    slots: config.slots,
    instanceId: config.instanceId,
    held: table.held(),
    environments,
    bootId: hardware.bootId,
    dial: BigInt(dial),
  });
}
