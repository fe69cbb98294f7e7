import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { LINK_PATH, LINK_SUBPROTOCOL, LinkCodec, signedBytes } from '@harrier/shared';
import { AgentMessageSchema } from '@harrier/shared/gen/link';
import { WebSocket } from 'ws';

/** DER of a PKCS #8 private key for Ed25519 (RFC 8410), up to the key itself. */
const ED25519_PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
const PUBLIC_KEY_BYTES = 32;
const BEAT_MS = 1_000;
const GIB = 1024n ** 3n;

/** Who the nth agent of the fleet is: the same in every process that asks. */
export class FleetIdentity {
  readonly id: string;
  readonly name: string;
  readonly publicKey: Uint8Array;
  readonly #privateKey: KeyObject;

  constructor(n: number) {
    const seed = createHash('sha256').update(`fleet ${n}`).digest();
    this.#privateKey = createPrivateKey({
      key: Buffer.concat([ED25519_PKCS8_PREFIX, seed]),
      format: 'der',
      type: 'pkcs8',
    });
    this.publicKey = createPublicKey(this.#privateKey)
      .export({ format: 'der', type: 'spki' })
      .subarray(-PUBLIC_KEY_BYTES);
    this.id = `01900000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;
    this.name = `fleet-${n}`;
  }

  sign(nonce: Uint8Array): Uint8Array {
    return sign(null, signedBytes(nonce, this.publicKey), this.#privateKey);
  }
}

/** What a host of a fleet has; its size counts, since the control plane keeps it. */
const HARDWARE = {
  cpu: { model: 'AMD EPYC 9654 96-Core Processor', physicalCores: 96, logicalCores: 192, architecture: 'x86_64' },
  memoryBytes: 768n * GIB,
  disks: ['/', '/data'].map((mount) => ({ mount, fileSystem: 'ext4', sizeBytes: 4096n * GIB, availableBytes: GIB })),
  gpus: [0, 1].map((index) => ({
    uuid: `GPU-0b5a3c1e-7d1f-4c2b-9a57-00000000000${index}`,
    index,
    model: 'NVIDIA H100 80GB HBM3',
    vendor: 'NVIDIA',
    memoryBytes: 80n * GIB,
    driverVersion: '570.86.15',
  })),
  os: { platform: 'linux', distribution: 'debian', release: '13', kernel: '6.12.0-18-amd64', hostname: 'host' },
  tools: ['python3', 'node', 'docker', 'uv'].map((name) => ({ name, version: '1.2.3', path: `/usr/bin/${name}` })),
};

/** The agent's side of the link, without anything behind it: says hello, and beats every second. */
export class SimulatedAgent {
  readonly #identity: FleetIdentity;
  readonly #codec = new LinkCodec('agent');
  readonly #socket: WebSocket;
  readonly linked: Promise<void>;
  #beats = 0n;

  constructor(serverUrl: string, identity: FleetIdentity) {
    this.#identity = identity;
    const url = `${serverUrl.replace('http', 'ws')}${LINK_PATH}`;
    this.#socket = new WebSocket(url, LINK_SUBPROTOCOL, { perMessageDeflate: false });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.linked = promise;
    this.#socket.on('error', reject);
    // An agent that loses its link during a measurement makes it worthless.
    this.#socket.on('close', (code, reason) => reject(new Error(`${identity.name}: closed with ${code} ${reason}`)));
    this.#socket.on('message', (data: Buffer) => {
      for (const { message } of this.#codec.decode(data)) {
        if (message.case === 'challenge') this.#sayHello(message.value.nonce);
        else if (message.case === 'welcome') resolve();
      }
    });
  }

  /** @param onLost the link broke */
  startBeats(onLost: (code: number, reason: string) => void): void {
    this.#socket.removeAllListeners('close');
    this.#socket.on('close', (code, reason) => onLost(code, reason.toString()));
    setTimeout(() => setInterval(() => this.#beat(), BEAT_MS), Math.random() * BEAT_MS);
  }

  #sayHello(nonce: Uint8Array): void {
    const { id, name, publicKey } = this.#identity;
    this.#send({
      case: 'hello',
      value: {
        agentId: id,
        publicKey,
        signature: this.#identity.sign(nonce),
        name,
        version: '0.1.0',
        labels: { zone: 'eu', pool: 'general' },
        hardware: HARDWARE,
        isolation: { level: 2, cgroupLimits: ['memory', 'cpu', 'processes'] },
        slots: 4,
        instanceId: `${id}-1`,
        environments: {
          available: ['inline', 'venv', 'nodejs'],
          unavailable: { docker: 'no Docker engine answers at /var/run/docker.sock', conda: 'turned off' },
        },
        bootId: id,
      },
    });
  }

  #beat(): void {
    this.#send({
      case: 'heartbeat',
      value: {
        number: ++this.#beats,
        load: {
          cpuRatio: Math.random(),
          load1m: Math.random() * 96,
          load5m: Math.random() * 96,
          load15m: Math.random() * 96,
          memoryAvailableBytes: 512n * GIB,
        },
        activeExecutions: 0,
        isolation: { level: 2, cgroupLimits: ['memory', 'cpu', 'processes'] },
      },
    });
  }

  #send(message: NonNullable<MessageInitShape<typeof AgentMessageSchema>['message']>): void {
    for (const frame of this.#codec.encode([create(AgentMessageSchema, { message })])) this.#socket.send(frame);
  }
}
