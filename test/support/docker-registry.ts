import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { docker } from './docker-engine.ts';
import { freePort } from './free-port.ts';
import { Program } from './program.ts';
import { until } from './wait.ts';
import { directory, environment } from './workspace.ts';

/** The only user of a registry with `login`. */
export const REGISTRY_USER = 'puller';
export const REGISTRY_PASSWORD = 'correct horse battery staple';
/** bcrypt of the password, as htpasswd writes it. */
const HTPASSWD = '$2y$05$abcdefghijklmnopqrstuuFiPhXf1sVd3pCCRO.uVh34H/qI/ZsuS';

/** A registry of images on the loopback interface: the one that Docker Hub's is made of. */
export class DockerRegistry {
  /** `127.0.0.1:PORT`: what the names of its images start with. */
  readonly address: string;
  readonly #program: Program;

  private constructor(address: string, program: Program) {
    this.address = address;
    this.#program = program;
  }

  /** @param options.login whether only `REGISTRY_USER` gets anything */
  static async start(options: { login?: boolean } = {}): Promise<DockerRegistry> {
    const home = directory('reg');
    const address = `127.0.0.1:${await freePort()}`;
    const lines = [
      'version: 0.1',
      'log: {level: warn, accesslog: {disabled: true}}',
      `storage: {filesystem: {rootdirectory: ${home}/data}, delete: {enabled: true}}`,
      `http: {addr: "${address}"}`,
    ];
    if (options.login) {
      writeFileSync(join(home, 'htpasswd'), `${REGISTRY_USER}:${HTPASSWD}\n`);
      lines.push(`auth: {htpasswd: {realm: test, path: ${home}/htpasswd}}`);
    }
    writeFileSync(join(home, 'config.yml'), lines.join('\n'));
    const program = new Program({ argv: ['registry', 'serve', join(home, 'config.yml')], env: environment() });
    program.exited.catch(() => {});
    await until('the registry to answer', async () => {
      if (!program.running) throw new Error(`the registry ended:\n${program.stderr}`);
      return await fetch(`http://${address}/v2/`).then(
        ({ status }) => status === 200 || status === 401,
        () => false,
      );
    });
    return new DockerRegistry(address, program);
  }

  /** Tells the engine to push an image of its own under a name of this registry. @returns that name with its digest */
  push(image: string, name: string): string {
    const target = `${this.address}/${name}`;
    docker('tag', image, target);
    const pushed = docker('push', target);
    const digest = /digest: (sha256:[0-9a-f]{64})/.exec(pushed)?.[1];
    if (digest === undefined) throw new Error(`docker push said: ${pushed}`);
    docker('image', 'rm', '--force', target);
    return `${target}@${digest}`;
  }

  /** Answers nothing until `resume`, so that a pull cannot come to its end before then. */
  pause(): void {
    process.kill(this.#program.pid, 'SIGSTOP');
  }

  resume(): void {
    process.kill(this.#program.pid, 'SIGCONT');
  }

  async stop(): Promise<void> {
    if (this.#program.running) this.resume();
    await this.#program.stop();
  }
}
