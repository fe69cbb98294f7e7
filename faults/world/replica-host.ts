import { ControlPlane } from '../../test/support/control-plane.ts';
import { directory } from '../../test/support/workspace.ts';

interface Settings {
  databaseUrl: string;
  env: Record<string, string>;
}

/** A replica of the control plane, on one port from start to start. */
export class ReplicaHost {
  readonly name: string;
  controlPlane: ControlPlane;
  readonly #options: Settings;

  private constructor(name: string, controlPlane: ControlPlane, options: Settings) {
    this.name = name;
    this.controlPlane = controlPlane;
    this.#options = options;
  }

  static async start(name: string, databaseUrl: string, env: Record<string, string>): Promise<ReplicaHost> {
    const controlPlane = await ControlPlane.start({ databaseUrl, env, dataDirectory: directory('cp') });
    return new ReplicaHost(name, controlPlane, { databaseUrl, env });
  }

  get running(): boolean {
    return this.controlPlane.program.running;
  }

  /** @param env variables for this start alone */
  async startAgain(env: Record<string, string> = {}): Promise<void> {
    const { dataDirectory, port } = this.controlPlane;
    const { databaseUrl, env: common } = this.#options;
    this.controlPlane = await ControlPlane.start({ databaseUrl, dataDirectory, port, env: { ...common, ...env } });
  }

  async kill(): Promise<void> {
    await this.controlPlane.kill();
  }

  async stop(): Promise<void> {
    if (this.running) await this.controlPlane.stop();
    else this.controlPlane.disconnect();
  }
}
