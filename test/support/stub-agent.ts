import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Hardware_Gpu_State as GpuState, type Hardware, HardwareSchema } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { type Assignment, EnvironmentSupportSchema, type HelloSchema } from '@harrier/shared/gen/link';
import type { ControlPlane } from './control-plane.ts';
import { RawIdentity, RawLink } from './raw-link.ts';

const BEAT_MS = 5_000;
const GIB = 1024n ** 3n;

/** What it says of itself; it has the label `test` with its name. */
export type StubFacts = Pick<
  MessageInitShape<typeof HelloSchema>,
  'slots' | 'labels' | 'hardware' | 'isolation' | 'capacity' | 'environments' | 'held'
>;

/** An agent that runs nothing: it takes what it is given, and says that it has ended when the test wants it. */
export class StubAgent {
  readonly identity: RawIdentity;
  readonly link: RawLink;
  readonly #beats: NodeJS.Timeout;

  private constructor(identity: RawIdentity, link: RawLink) {
    this.identity = identity;
    this.link = link;
    let number = 0n;
    this.#beats = setInterval(() => link.send({ case: 'heartbeat', value: { number: ++number } }), BEAT_MS);
    this.#beats.unref();
  }

  /** Joins, or comes back as the agent that had this identity. @param token default: one of the first tenant */
  static async join(
    to: ControlPlane,
    name: string,
    hello: StubFacts = {},
    identity = new RawIdentity(),
    token?: string,
  ): Promise<StubAgent> {
    const joinToken = identity.agentId === '' ? (token ?? (await to.joinToken())) : '';
    const link = await RawLink.join(to.url, identity, {
      slots: 8,
      instanceId: name,
      joinToken,
      labels: { test: name },
      ...hello,
      name,
    });
    return new StubAgent(identity, link);
  }

  /** Waits for the next attempt that it is given. */
  async given(): Promise<Assignment> {
    return await this.link.next('assignment');
  }

  /** Ends an attempt well. */
  end({ ref }: Assignment): void {
    if (ref === undefined) throw new Error('the assignment has no name');
    this.link.send({ case: 'result', value: { ref, state: State.SUCCEEDED, outputJson: Buffer.from('{}') } });
  }

  leave(): void {
    clearInterval(this.#beats);
    this.link.close();
  }
}

/** A host with so many cards that can be given. */
export function cards(count: number, model = 'NVIDIA H100 80GB HBM3'): Hardware {
  return create(HardwareSchema, {
    gpus: Array.from({ length: count }, (_, index) => ({
      uuid: `GPU-${index}`,
      index,
      model,
      vendor: 'NVIDIA',
      memoryBytes: 80n * GIB,
      driverVersion: '550.54.14',
      state: GpuState.FREE,
    })),
  });
}

export function support(...available: string[]) {
  return create(EnvironmentSupportSchema, { available });
}
