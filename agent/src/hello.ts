import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { signedBytes, VERSION } from '@harrier/shared';
import type { Hardware, Isolation, Resources } from '@harrier/shared/gen/agent';
import { type Challenge, type Hello, HelloSchema, type ManagedServices } from '@harrier/shared/gen/link';
import type { AgentConfig } from './config.ts';
import type { Support } from './environment/environment-registry.ts';
import type { AgentIdentity } from './identity/agent-identity.ts';
import type { AttemptTable } from './job/attempt-table.ts';

/** What the host is and has, as it is told. */
export interface HostFacts {
  hardware: Hardware;
  isolation: Isolation;
  /** For how long the launcher has run whose attempts the table has; undefined: not known. */
  launcherAgeMs: number | undefined;
  environments: Support;
  capacity: Resources;
  services: ManagedServices;
  /** Where its metrics are found, `HOST:PORT`. */
  metricsAddress: string;
}

/** The agent's answer to a challenge: who it is, what it is, and what it still holds. */
export function createHello(
  challenge: Challenge,
  dial: number,
  config: AgentConfig,
  identity: AgentIdentity,
  table: AttemptTable,
  { services, launcherAgeMs, ...host }: HostFacts,
): Hello {
  return create(HelloSchema, {
    agentId: identity.agentId,
    joinToken: identity.agentId === '' ? config.joinToken : '',
    publicKey: identity.publicKey,
    signature: identity.sign(signedBytes(challenge.nonce, identity.publicKey)),
    name: config.name,
    version: VERSION,
    labels: config.labels,
    slots: config.slots,
    instanceId: config.instanceId,
    held: table.held(),
    bootId: host.hardware.bootId,
    dial: BigInt(dial),
    services: services.services,
    ...(launcherAgeMs !== undefined && { launcherAge: durationFromMs(Math.floor(launcherAgeMs)) }),
    ...host,
  });
}
