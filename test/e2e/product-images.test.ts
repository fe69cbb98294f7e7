import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERSION } from '@harrier/shared';
import { Isolation_Level as Level } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Clients } from '../support/clients.ts';
import { docker, dockerEnvironment } from '../support/docker-engine.ts';
import { execute } from '../support/executions.ts';
import { freePort } from '../support/free-port.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { buildProductImage } from '../support/product-images.ts';
import { code } from '../support/requests.ts';
import { until } from '../support/wait.ts';
import { directory, REPOSITORY } from '../support/workspace.ts';

const BUILD_MS = 600_000;
/** As docs/kubernetes.md says. */
const CONFINED = ['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--network', 'host'];
const SANDBOX = [
  ...['--security-opt', `seccomp=${join(REPOSITORY, 'deploy/docker/agent/seccomp.json')}`],
  ...['--security-opt', 'systempaths=unconfined'],
];
/** Whatever is in it: it is handed out as it is. */
const BUNDLE = `harrier-agent-${VERSION}-linux-x64.tar.gz`;
const tmpfs = (path: string): string[] => ['--tmpfs', `${path}:exec,uid=10001,gid=10001,mode=0700`];

const containers: string[] = [];
let images = { controlPlane: '', agent: '' };
let postgres: ExternalPostgres;

beforeAll(async () => {
  images = { controlPlane: await buildProductImage('control-plane'), agent: await buildProductImage('agent') };
  postgres = await ExternalPostgres.start();
}, BUILD_MS);

afterAll(async () => {
  for (const id of containers) docker('rm', '--force', id);
  await postgres.stop();
});

/** What a container wrote to its standard error. */
function logOf(container: string): string {
  return spawnSync('docker', ['logs', container], { encoding: 'utf8', env: dockerEnvironment() }).stderr;
}

function run(...args: string[]): string {
  const id = docker('run', '--detach', ...CONFINED, ...args);
  containers.push(id);
  return id;
}

async function startControlPlane() {
  const [port, metrics] = [await freePort(), await freePort()];
  // Given, as to replicas that are to have the same.
  const keyFile = join(directory('keys'), 'api-key');
  writeFileSync(keyFile, `hk_${randomBytes(32).toString('base64url')}\n`, { mode: 0o444 });
  const bundles = directory('bundles');
  writeFileSync(join(bundles, BUNDLE), 'an agent');
  const id = run(
    ...tmpfs('/var/lib/harrier'),
    ...['--volume', `${keyFile}:/var/lib/harrier/admin.key:ro`],
    ...['--volume', `${bundles}:/opt/harrier/bundles:ro`],
    ...['--env', `HARRIER_DATABASE_URL=${postgres.url}`, '--env', `HARRIER_LISTEN=127.0.0.1:${port}`],
    ...['--env', `HARRIER_METRICS_LISTEN=127.0.0.1:${metrics}`, images.controlPlane],
  );
  const url = `http://127.0.0.1:${port}`;
  await until(
    'the control plane to be ready',
    () =>
      fetch(`${url}/readyz`).then(
        ({ ok }) => ok,
        () => false,
      ),
    { seen: () => logOf(id) },
  );
  return { id, url, keyFile, clients: new Clients(url, readFileSync(keyFile, 'utf8').trim()) };
}

test('the control plane serves, and the agent joins it and runs a call in its sandbox, both without any privilege', async () => {
  const { id, url, keyFile, clients } = await startControlPlane();
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  const installer = await fetch(`${url}/install.sh`);
  const digest = createHash('sha256').update('an agent').digest('hex');
  expect([installer.status, await installer.text()]).toEqual([
    200,
    expect.stringContaining(`\nBAKED_SHA256_X64='${digest}'\n`),
  ]);
  expect(await (await fetch(`${url}/install/${BUNDLE}`)).text()).toBe('an agent');
  const shared = directory('shared');
  chmodSync(shared, 0o777);
  const joins = [
    ...['--volume', `${keyFile}:/key:ro`, '--volume', `${shared}:/shared`, '--entrypoint', 'node', images.agent],
    ...['/opt/harrier/join.mjs', '--server', url, '--token-file', '/shared/token', '--data-dir', '/nothing'],
  ];
  expect(docker('wait', run(...joins, '--key-file', '/key'))).toBe('0');
  const refused = run(...joins, '--key-file', '/etc/hostname');
  expect([docker('wait', refused), logOf(refused)]).toEqual([
    '1',
    expect.stringMatching(/^join: http.* answered 401: /),
  ]);
  const agent = run(
    ...SANDBOX,
    ...tmpfs('/var/lib/harrier-agent'),
    ...['--tmpfs', '/tmp', '--volume', `${shared}:/shared:ro`, '--env', `HARRIER_SERVER_URL=${url}`],
    ...['--env', 'HARRIER_JOIN_TOKEN_FILE=/shared/token', '--env', 'HARRIER_AGENT_METRICS_LISTEN=127.0.0.1:0'],
    images.agent,
  );
  await until('the agent to be online', async () => (await clients.agents.listAgents({})).agents[0]?.state === 1, {
    seen: () => logOf(agent),
  });
  const { agents } = await clients.agents.listAgents({});
  expect(agents[0]?.isolation?.level).toBe(Level.SANDBOX);
  const source = 'import os\ndef handler(input): return {"uid": os.getuid(), "n": input["n"] + 1}';
  const execution = await execute(clients.executions, code(source, { n: 1 }));
  expect(execution, execution.error?.message).toMatchObject({ state: State.SUCCEEDED });
  expect(JSON.parse(execution.outputJson)).toEqual({ uid: 1000, n: 2 });
  for (const container of [id, agent]) {
    const [user, processes] = [
      docker('inspect', '-f', '{{.Config.User}}', container),
      docker('top', container, '-o', 'pid,uid'),
    ];
    expect(user).toBe('10001:10001');
    const [, ...lines] = processes.split('\n');
    expect(new Set(lines.map((line) => line.trim().split(/ +/)[1]))).toEqual(new Set(['10001']));
  }
  // An agent that has joined needs neither key nor control plane for it.
  const again = ['--server', 'http://127.0.0.1:9', '--key-file', '/none', '--token-file', '/tmp/token'];
  docker('exec', agent, 'node', '/opt/harrier/join.mjs', '--data-dir', '/var/lib/harrier-agent', ...again);
  clients.close();
  docker('stop', '--time', '60', agent);
  expect(docker('inspect', '-f', '{{.State.ExitCode}}', agent)).toBe('0');
  docker('stop', '--time', '60', id);
  expect(docker('inspect', '-f', '{{.State.ExitCode}}', id)).toBe('0');
});

test('an agent whose container does not let it make a sandbox says so, and does not work without one', async () => {
  const id = run(
    ...tmpfs('/var/lib/harrier-agent'),
    ...['--tmpfs', '/tmp', '--env', 'HARRIER_SERVER_URL=http://127.0.0.1:9', '--env', 'HARRIER_JOIN_TOKEN=x'],
    ...['--env', 'HARRIER_AGENT_METRICS_LISTEN=127.0.0.1:0', images.agent],
  );
  expect([docker('wait', id), logOf(id)]).toEqual(['1', expect.stringContaining('no sandbox can be started')]);
});

describe('an image', () => {
  test('of the control plane has no PostgreSQL of its own, and says what it needs', () => {
    const id = run(...tmpfs('/var/lib/harrier'), images.controlPlane);
    expect([docker('wait', id), logOf(id)]).toEqual(['1', expect.stringContaining('set HARRIER_DATABASE_URL')]);
  });

  test(
    'is the same when it is built again',
    async () => {
      const digest = (image: string): string =>
        docker(
          'run',
          '--rm',
          '--network',
          'none',
          '--entrypoint',
          'sh',
          image,
          '-c',
          'cd /opt/harrier && tar --sort=name -c * | sha256sum',
        );
      const fresh = await buildProductImage('control-plane', true);
      expect(digest(fresh)).toBe(digest(images.controlPlane));
      docker('image', 'rm', '--force', fresh);
    },
    BUILD_MS,
  );
});
