import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { Agent } from '../test/support/agent.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import {
  DOCKER_SOCKET,
  docker,
  PYTHON_IMAGE,
  startDockerEngine,
  stopDockerEngine,
} from '../test/support/docker-engine.ts';
import { REPOSITORY } from '../test/support/workspace.ts';
import { HttpCaller } from './http-caller.ts';
import { median } from './statistics.ts';

const ROUNDS = 5;
const CALLS = 60;
/** Of the standard library: what they cost to import is nothing. */
const SMALL_MODULES = ['colorsys', 'graphlib', 'tabnanny', 'sched', 'quopri'];
const COLD_RUNS = 5;
const QUIET_MS = 2_000;
const ADD_ONE = 'def handler(input):\n    return {"n": input["n"] + 1}\n';
/** Small packages without dependencies, one for each cold build. */
const SMALL_PACKAGES = ['idna==3.10', 'six==1.17.0', 'certifi==2025.1.31', 'tomli==2.2.1', 'toolz==1.0.0'];
/** A mount namespace in which no sandbox can be started. */
const WITHOUT_SANDBOX = [
  ...['unshare', process.getuid?.() === 0 ? '-m' : '-Urm', 'sh', '-c'],
  ...['mount --bind /dev/null "$(command -v bwrap)" && exec "$@"', 'sh'],
];

type Kind = MessageInitShape<typeof EnvironmentSchema>['kind'];

const PARTS = ['sandbox', 'containers', 'venvs', 'preload'] as const;

/**
 * Environments against their like: ratios of one run on one machine.
 * @param chosen names of parts; none: all
 */
export async function benchEnvironments(_python: string, chosen: readonly string[]): Promise<Record<string, number>> {
  // Where `npm test` installs uv.
  process.env.PATH = `${process.env.PATH}:${join(REPOSITORY, '.venv', 'bin')}`;
  await startDockerEngine();
  const controlPlane = await ControlPlane.start();
  const agents: Agent[] = [];
  try {
    const start = async (name: string, options: Partial<Parameters<typeof Agent.start>[0]> = {}) => {
      const joinToken = await controlPlane.joinToken();
      const labels = { bench: name };
      agents.push(Agent.start({ name, serverUrl: controlPlane.url, joinToken, ...options, labels }));
      await controlPlane.untilOnline(agents.length);
    };
    const env = { HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`, HARRIER_AGENT_ALLOWED_IMAGES: '*' };
    await start('on', { env });
    await start('off', { flags: ['--allow-unsandboxed'], wrapper: WITHOUT_SANDBOX });
    const bench = new Bench(controlPlane);
    const figures: Record<string, number> = {};
    for (const part of PARTS) {
      if (chosen.length === 0 || chosen.includes(part)) Object.assign(figures, await bench[part]());
    }
    return figures;
  } finally {
    for (const agent of agents) await agent.remove();
    await controlPlane.stop();
    await stopDockerEngine();
  }
}

class Bench {
  readonly #controlPlane: ControlPlane;
  #modules = 0;

  constructor(controlPlane: ControlPlane) {
    this.#controlPlane = controlPlane;
  }

  /** The same call of a fresh process, with the sandbox and without. */
  async sandbox(): Promise<Record<string, number>> {
    const on = await this.#module(ADD_ONE, undefined);
    const off = await this.#module(ADD_ONE, undefined, { agentSelector: 'bench=off' });
    const [sandboxed = 0, bare = 0] = await this.#inTurns([on, off]);
    return { sandbox_on_ms: sandboxed, sandbox_off_ms: bare, sandbox_on_over_off: sandboxed / bare };
  }

  async containers(): Promise<Record<string, number>> {
    const kind: Kind = { case: 'docker', value: { image: PYTHON_IMAGE } };
    const inline = await this.#module(ADD_ONE, undefined);
    const warm = await this.#module(ADD_ONE, kind);
    const [inlineMs = 0, warmMs = 0] = await this.#inTurns([inline, warm]);
    const bare: number[] = [];
    const cold: number[] = [];
    for (let run = 0; run < COLD_RUNS; run++) {
      bare.push(time(() => docker('run', '--rm', '--network', 'none', PYTHON_IMAGE, 'python3', '-c', 'pass')));
      // Other modules imported ahead need another container.
      const other = await this.#module(ADD_ONE, kind, { preload: [SMALL_MODULES[run] ?? 'json'] });
      cold.push(await this.#call(other, 1));
    }
    return {
      docker_warm_ms: warmMs,
      docker_run_ms: median(bare),
      docker_cold_ms: median(cold),
      docker_warm_over_inline: warmMs / inlineMs,
      docker_run_over_docker_warm: median(bare) / warmMs,
      docker_cold_over_docker_run: median(cold) / median(bare),
    };
  }

  async venvs(): Promise<Record<string, number>> {
    const hit = await this.#module(ADD_ONE, { case: 'venv', value: { requirements: ['six==1.17.0'] } });
    await this.#call(hit, 1);
    const hits: number[] = [];
    for (let call = 0; call < CALLS; call++) hits.push((await this.#execution(hit)).phases?.prepareMs ?? 0);
    const cold: number[] = [];
    const bare: number[] = [];
    for (const requirement of SMALL_PACKAGES) {
      const module = await this.#module(ADD_ONE, {
        case: 'venv',
        value: { requirements: [requirement, 'iniconfig==2.0.0'] },
      });
      bare.push(bareUv([requirement, 'iniconfig==2.0.0']));
      cold.push(await this.#call(module, 1));
      // The agent compiles what it has installed while it is in use, and prepares for the next build of the tenant.
      await setTimeout(QUIET_MS);
    }
    return {
      environment_hit_ms: median(hits),
      venv_cold_ms: median(cold),
      uv_bare_ms: median(bare),
      venv_cold_over_uv: median(cold) / median(bare),
    };
  }

  /** A call that imports numpy from a zygote that has it, and one that imports nothing. */
  async preload(): Promise<Record<string, number>> {
    const kind: Kind = { case: 'venv', value: { requirements: ['numpy'] } };
    const limits = { memoryBytes: 2n ** 30n };
    const plain = await this.#module(ADD_ONE, kind, { limits });
    const withNumpy = await this.#module(`import numpy\n${ADD_ONE}`, kind, { limits, preload: ['numpy'] });
    const imported = await this.#module(`import numpy\n${ADD_ONE}`, kind, { limits });
    const [plainMs = 0, preloadMs = 0, importMs = 0] = await this.#inTurns([plain, withNumpy, imported]);
    return {
      preload_ms: preloadMs,
      import_over_plain: importMs / plainMs,
      preload_over_plain: preloadMs / plainMs,
    };
  }

  async #module(code: string, kind: Kind | undefined, rest: object = {}): Promise<string> {
    const name = `bench-${++this.#modules}`;
    const environment = kind === undefined ? {} : { environment: create(EnvironmentSchema, { kind } as never) };
    const module = { name, version: '1.0.0', code, agentSelector: 'bench=on', ...environment, ...rest };
    await this.#controlPlane.clients.modules.createModule({ module });
    return name;
  }

  async #execution(module: string) {
    const { execution } = await this.#controlPlane.clients.executions.execute({
      target: { case: 'module', value: module },
      inputForm: { case: 'inputJson', value: '{"n":1}' },
    });
    if (execution?.outputJson !== '{"n":2}')
      throw new Error(`${module}: ${execution?.error?.message}\n${execution?.stderrTail}`);
    return execution;
  }

  /** Median of calls one after the other, in milliseconds. */
  async #call(module: string, count: number): Promise<number> {
    const path = '/harrier.v1.ExecutionService/Execute';
    const caller = new HttpCaller(this.#controlPlane.url, path, this.#controlPlane.adminKey);
    const times: number[] = [];
    for (let n = 0; n < count; n++) {
      const startMs = performance.now();
      const answer = await caller.call(JSON.stringify({ module, inputJson: '{"n":1}' }));
      times.push(performance.now() - startMs);
      if (!answer.includes('SUCCEEDED')) throw new Error(answer);
    }
    caller.close();
    return median(times);
  }

  /** Each module's median of medians; in turns, so that what disturbs the machine disturbs all. */
  async #inTurns(modules: readonly string[]): Promise<number[]> {
    const medians: number[][] = modules.map(() => []);
    for (const module of modules) await this.#call(module, CALLS);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [index, module] of modules.entries()) medians[index]?.push(await this.#call(module, CALLS));
    }
    return medians.map(median);
  }
}

/** What `uv` takes by itself: an environment and its packages, from an empty cache. */
function bareUv(requirements: readonly string[]): number {
  const directory = mkdtempSync(join(tmpdir(), 'uv-'));
  const env = {
    ...process.env,
    UV_CACHE_DIR: join(directory, 'cache'),
    UV_NO_CONFIG: '1',
    SSL_CERT_FILE: '/etc/ssl/certs/ca-certificates.crt',
  };
  const options = { env, stdio: 'ignore' } as const;
  const target = join(directory, 'venv');
  const elapsed = time(() => {
    execFileSync('uv', ['venv', '--python', '/usr/bin/python3', target], options);
    execFileSync('uv', ['pip', 'install', '--python', join(target, 'bin', 'python'), ...requirements], options);
  });
  rmSync(directory, { recursive: true });
  return elapsed;
}

function time(work: () => void): number {
  const startMs = performance.now();
  work();
  return performance.now() - startMs;
}
