import { ControlPlane } from '../../test/support/control-plane.ts';
import { directory } from '../../test/support/workspace.ts';
import { DatabaseProxy } from './database-proxy.ts';

interface Settings {
  databaseUrl: string;
  env: Record<string, string>;
}

/** A replica of the control plane, on one port from start to start. */
export class ReplicaHost {
  readonly name: string;
  controlPlane: ControlPlane;
  /** Its way to PostgreSQL. */
  readonly database: DatabaseProxy;
  readonly #options: Settings;

  private constructor(name: string, controlPlane: ControlPlane, database: DatabaseProxy, options: Settings) {
    this.name = name;
    this.controlPlane = controlPlane;
    this.database = database;
    this.#options = options;
  }

  /** @param databaseUrl of a PostgreSQL that listens on this host */
  static async start(name: string, databaseUrl: string, env: Record<string, string>): Promise<ReplicaHost> {
    const url = new URL(databaseUrl);
    const database = await DatabaseProxy.listen(Number(url.port));
    url.port = String(database.port);
    try {
      const options = { databaseUrl: url.href, env };
      const controlPlane = await ControlPlane.start({ ...options, dataDirectory: directory('cp') });
      return new ReplicaHost(name, controlPlane, database, options);
    } catch (error) {
      await database.close();
      throw error;
    }
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

  /** Ends it for good, with its way to PostgreSQL. */
  async remove(): Promise<void> {
    await this.stop();
    await this.database.close();
  }
}
