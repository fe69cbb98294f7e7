import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { launcherGuard } from '../../agent/src/executor/container-guard.ts';
import { bootNowMs, monotonicMs } from '../../agent/src/lease/boot-clock.ts';
import { connectLauncher } from '../../agent/src/test-support/real-launcher.ts';
import { DockerAgent, pythonProgram } from '../support/docker-agent.ts';
import { DOCKER_SOCKET, docker, startDockerEngine } from '../support/docker-engine.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const FOREVER = 'import sys, time; print("up", file=sys.stderr, flush=True); time.sleep(3600)';

beforeAll(() => startDockerEngine(), 300_000);

/** A launcher whose lease the test decides on. It ends with the test. */
async function startLauncher() {
  let untilMs: number | null = null;
  const { launcher } = connectLauncher(directory('dl'), () => ({ until_ms: untilMs, grace_ms: 100 }));
  await launcher.open();
  onTestFinished(() => launcher.stop(0));
  const lease = (ms: number): void => {
    untilMs = monotonicMs(bootNowMs() + ms);
    launcher.tellLease();
  };
  return { launcher, guard: launcherGuard(launcher, DOCKER_SOCKET), lease };
}

/** The end of the lease that a launcher has written down. */
function kept(dataDir: string): number | null {
  return JSON.parse(readFileSync(join(dataDir, 'spool', 'lease'), 'utf8')).end;
}

function running(agent: DockerAgent): boolean {
  return docker('ps', '--quiet', '--filter', `label=harrier.agent=${agent.dataDir}`) !== '';
}

test('a container ends with the lease of its agent, and the attempt says why', async () => {
  const { guard, lease } = await startLauncher();
  const agent = await DockerAgent.start({ guard });
  agent.start('e1', pythonProgram(FOREVER));
  await agent.untilLogged('e1', 'up');
  lease(500);
  const end = await agent.end('e1');
  expect(end).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(end.error?.message).toContain('could not reach the control plane');
});

test('it ends although the agent is gone, and the next agent knows why', async () => {
  const { guard, lease } = await startLauncher();
  const gone = await DockerAgent.start({ guard });
  gone.start('e1', pythonProgram(FOREVER));
  await gone.untilLogged('e1', 'up');
  gone.close();
  lease(500);
  await until('the container to be ended', () => !running(gone));
  const next = await DockerAgent.start({ guard, dataDir: gone.dataDir });
  expect(await next.end('e1')).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
});

test('it ends although agent and launcher were killed, and the next agent knows why', async () => {
  let untilMs: number | null = null;
  const dataDir = directory('dl');
  const { launcher, record } = connectLauncher(dataDir, () => ({ until_ms: untilMs, grace_ms: 100 }));
  await launcher.open();
  const gone = await DockerAgent.start({ guard: launcherGuard(launcher, DOCKER_SOCKET) });
  gone.start('e1', pythonProgram(FOREVER));
  await gone.untilLogged('e1', 'up');
  untilMs = monotonicMs(bootNowMs() + 2_000);
  launcher.tellLease();
  // It has heard of it when it has written it down.
  await until('the lease to be kept', () => existsSync(join(dataDir, 'spool', 'lease')) && kept(dataDir) !== null);
  const [welcome] = record.welcomes;
  launcher.close();
  gone.close();
  process.kill(welcome?.pid ?? 0, 'SIGKILL');
  await until('the container to be ended', () => !running(gone));
  const next = await DockerAgent.start({ dataDir: gone.dataDir });
  expect(await next.end('e1')).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
});

test('one that may go on beyond the lease does, and ends as it likes', async () => {
  const { guard, lease } = await startLauncher();
  const agent = await DockerAgent.start({ guard });
  const script =
    'import json, sys, time; print("up", file=sys.stderr, flush=True); time.sleep(2); print(json.dumps({"ok": True, "output": {}}))';
  agent.start('kept', { ...pythonProgram(script), maxDisconnect: { seconds: 60n } });
  agent.start('e1', pythonProgram(FOREVER));
  await agent.untilLogged('kept', 'up');
  await agent.untilLogged('e1', 'up');
  lease(100);
  expect(await agent.end('e1')).toMatchObject({ code: 'AGENT_LOST' });
  expect(await agent.end('kept')).toMatchObject({ outcome: 'succeeded', result: '{}' });
});

test('nothing starts in a container after the lease', async () => {
  const { guard, lease } = await startLauncher();
  lease(-1);
  const agent = await DockerAgent.start({ guard });
  agent.start('e1', pythonProgram(FOREVER));
  expect(await agent.end('e1')).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  await until('the container to be gone', () => !running(agent));
});

test('a container that ended with the host is lost with it', async () => {
  const before = await DockerAgent.start();
  before.start('e1', pythonProgram(FOREVER));
  await before.untilLogged('e1', 'up');
  before.close();
  docker('kill', docker('ps', '--quiet', '--filter', `label=harrier.agent=${before.dataDir}`));
  const [attempt = ''] = readdirSync(join(before.dataDir, 'containers'));
  const path = join(before.dataDir, 'containers', attempt, 'facts.json');
  const facts = JSON.parse(readFileSync(path, 'utf8'));
  writeFileSync(path, JSON.stringify({ ...facts, bootId: 'an earlier boot' }));
  const after = await DockerAgent.start({ dataDir: before.dataDir });
  const end = await after.end('e1');
  expect(end).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(end.stderr.toString()).toBe('up\n');
});
