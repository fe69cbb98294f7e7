import { createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type MessageInitShape, create as message } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { LimitsSchema } from '@harrier/shared/gen/module';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { create, execute, finished, untilPrinted } from '../support/executions.ts';
import { processesWith } from '../support/processes.ts';
import type { Stack } from '../support/stack.ts';
import { tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';
import { expectSuccess, type ProbeName, type ProgramName, type Subject } from './subjects.ts';

const MIB = 1024 * 1024;
/** What the kernel answers to a call that the filter denies. */
const DENIED = /^(EPERM|ENOSYS|EACCES)$/;

/** What code tries and must not get, whatever runs it. */
export function testProbes(stack: Stack, subject: Subject): void {
  const { executions } = stack;
  const { log } = subject;
  type LimitsInit = MessageInitShape<typeof LimitsSchema>;

  /** A test, unless the subject has a reason against its probe. */
  const tries = (probe: ProbeName, title: string, body: () => Promise<void>) => {
    if (subject.without[probe] === undefined) test(title, body);
  };
  const request = (program: ProgramName, input: object, limits: LimitsInit = {}, timeoutS = 30) => ({
    target: subject.target(program) as never,
    inputForm: { case: 'inputJson' as const, value: JSON.stringify(input) },
    limits: message(LimitsSchema, limits),
    timeout: { seconds: BigInt(timeoutS) } as never,
  });
  const probe = async (what: ProbeName, input: object = {}, limits: LimitsInit = {}, timeoutS = 30) =>
    await execute(executions, request('probe', { what, ...input }, limits, timeoutS));
  const found = async (execution: Execution) => {
    expectSuccess(execution);
    // biome-ignore lint/suspicious/noExplicitAny: whatever the probe has found
    return (await subject.answer(execution, stack)) as any;
  };

  // The neighbour of every probe prints a line every 20 ms from before it until after it, and must not notice.
  let neighbour = '';
  beforeEach(async () => {
    const ticks = { lines: 100_000, pause: 0.02 };
    neighbour = await create(executions, request('ticker', ticks, {}, 300));
    await untilPrinted(executions, neighbour, 'line 1 ');
  });
  afterEach(async () => {
    const { execution: before } = await executions.getExecution({ id: neighbour });
    expect(before?.state).toBe(State.RUNNING);
    await until('the neighbour to print on', async () => {
      const { execution } = await executions.getExecution({ id: neighbour });
      return (execution?.[`${log}Bytes`] ?? 0n) > (before?.[`${log}Bytes`] ?? 0n);
    });
    await executions.cancelExecution({ id: neighbour });
    const tail = (await finished(executions, neighbour))[`${log}Tail`];
    const lines = tail
      .slice(tail.indexOf('\n') + 1)
      .split('\n')
      .slice(0, -1);
    const last = Number(/\d+/.exec(lines.at(-1) ?? '')?.[0]);
    expect(tickerText({ lines: last + 1 }).endsWith(`${lines.join('\n')}\n`)).toBe(true);
  });

  describe('exhaustion', () => {
    tries('fork_bomb', 'a fork bomb ends with its timeout, and all of it is gone', async () => {
      const mark = `fork-bomb-${process.pid}`;
      const execution = await execute(executions, {
        ...request('probe', { what: 'fork_bomb' }, { processes: 64 }, 3),
        env: { MARK: mark },
      });
      expect(execution).toMatchObject({ state: State.TIMED_OUT, error: { code: Code.TIMEOUT } });
      await until('its processes to be gone', () => processesWith(mark).length === 0);
    });

    tries('memory_bomb', `memory beyond the limit is ${subject.outOfMemory.join(' or ')}`, async () => {
      const execution = await probe('memory_bomb', {}, { memoryBytes: BigInt(128 * MIB) });
      expect(execution.state).toBe(State.FAILED);
      expect(subject.outOfMemory.map((code) => Code[code])).toContain(execution.error?.code);
    });

    for (const directory of ['/tmp', '/dev/shm']) {
      tries('fill', `${directory} has its size, and no more`, async () => {
        const limits = { tmpBytes: BigInt(8 * MIB), memoryBytes: BigInt(512 * MIB) };
        const { bytes, error } = await found(await probe('fill', { directory }, limits));
        expect(error).toBe('ENOSPC');
        expect(bytes).toBeLessThanOrEqual(8 * MIB);
      });

      tries('make_files', `${directory} has a bound on its files`, async () => {
        const { files, error } = await found(await probe('make_files', { directory }, { tmpBytes: BigInt(8 * MIB) }));
        expect(error).toBe('ENOSPC');
        expect(files).toBeLessThan(10_000);
      });
    }

    tries('open_files', 'descriptors run out for the code alone', async () => {
      const { files, error } = await found(await probe('open_files'));
      expect(error).toBe('EMFILE');
      expect(files).toBeLessThan(70_000);
    });

    tries('spin', 'a loop that never ends is ended', async () => {
      expect(await probe('spin', {}, {}, 2)).toMatchObject({ state: State.TIMED_OUT });
    });

    for (const what of ['flood', 'endless_line'] as const) {
      tries(what, `a ${what} is cut at its limit`, async () => {
        const execution = await probe(what, {}, { [`${log}Bytes`]: BigInt(MIB) }, 3);
        expect(execution).toMatchObject({ state: State.TIMED_OUT, [`${log}Truncated`]: true });
        expect(execution[`${log}Tail`]).toContain(`[harrier: ${log} truncated after ${MIB} bytes]`);
        expect(execution[`${log}Bytes`]).toBeLessThan(BigInt(MIB + 200));
      });
    }

    tries('deep', 'a result that is too deep is refused', async () => {
      const execution = await probe('deep');
      expect(execution).toMatchObject({ state: State.FAILED, error: { code: Code.OUTPUT_INVALID } });
    });
  });

  describe('the host', () => {
    tries(
      'files',
      'has files that cannot be read, processes that cannot be seen, and nothing of it is in the environment',
      async () => {
        const { dataDirectory } = stack.agents[0] ?? { dataDirectory: '' };
        const paths = [
          join(dataDirectory, 'identity.json'),
          join(dataDirectory, 'launcher.sock'),
          join(stack.controlPlane.dataDirectory, 'admin.key'),
          '/etc/shadow',
          '/root/.bashrc',
          '/proc/kcore',
          '/proc/sysrq-trigger',
          '/dev/mem',
          '/run/docker.sock',
          '/var/run/docker.sock',
          `/proc/${process.pid}/environ`,
          `/proc/${stack.agents[0]?.program.pid}/environ`,
        ];
        const seen = await found(await probe('files', { paths }));
        for (const path of paths) expect(seen[path], path).toMatch(/^(ENOENT|EACCES|EPERM|ENXIO)$/);
        expect(seen.processes).toHaveLength(subject.processes);
        expect(seen.processes[0]).toBe(1);
        expect(seen.environment.join('\n')).not.toMatch(/HARRIER|TOKEN|SECRET/);
        expect(
          seen.devices.filter((name: string) => /^(mem|kmem|sd|vd|nvme|loop|fuse|kvm|net|mapper)/.test(name)),
        ).toEqual([]);
        // Standard streams, the channel, and the directory that is being listed.
        expect(seen.descriptors.length).toBeLessThanOrEqual(5);
        expect(seen.descriptors.join()).not.toContain(dataDirectory);
        // Where a program can be written to, it cannot be one that gives another user's rights.
        for (const [, target, , options] of seen.mounts) expect(options, target).toMatch(/^ro(,|$)|nosuid/);
      },
    );

    tries('sockets', 'has no address that can be reached', async () => {
      const listener = await listen({ host: '0.0.0.0', port: 0 });
      // The name space is the host's, where the same probes may run for another kind of environment.
      const name = `harrier-probe-${process.pid}`;
      const abstract = await listen({ path: `\0${name}` });
      try {
        const { port } = listener.address() as { port: number };
        const own = Object.values(networkInterfaces())
          .flat()
          .find((address) => address?.internal === false && address.family === 'IPv4');
        const addresses = {
          controlPlane: ['127.0.0.1', stack.controlPlane.port],
          loopback: ['127.0.0.1', port],
          loopback6: ['::1', port],
          zero: ['0.0.0.0', port],
          metadata: ['169.254.169.254', 80],
          linkLocal: ['fe80::1', 80],
          host: [own?.address ?? '127.0.0.2', port],
          outside: ['192.0.2.1', 80],
        };
        const paths = {
          postgres: join(stack.controlPlane.dataDirectory, 'postgres', '.s.PGSQL.5432'),
          launcher: join(stack.agents[0]?.dataDirectory ?? '', 'launcher.sock'),
          docker: '/var/run/docker.sock',
          abstract: name,
        };
        const seen = await found(await probe('sockets', { addresses, paths, resolver: '192.0.2.53' }));
        for (const [name, what] of Object.entries(seen)) expect(what, name).not.toBe('done');
      } finally {
        listener.close();
        abstract.close();
      }
    });

    tries('privileges', 'grants no privilege', async () => {
      const seen = await found(await probe('privileges'));
      const none = '0000000000000000';
      expect(seen).toMatchObject({ CapEff: none, CapPrm: none, CapInh: none, CapBnd: none, CapAmb: none });
      expect(seen).toMatchObject({ NoNewPrivs: '1', Seccomp: '2', user: 1000, core: [0, 0] });
      for (const name of ['setuid', 'setgid', 'chroot', 'mknod', 'owner']) expect(seen[name], name).not.toBe('done');
    });

    tries('calls', 'denies what only takes a sandbox apart', async () => {
      const seen = (await found(await probe('calls'))) as Record<string, string>;
      for (const [name, what] of Object.entries(seen)) expect(what, name).toMatch(DENIED);
      expect(Object.keys(seen).length).toBeGreaterThan(25);
    });

    tries('terminal', 'has no terminal', async () => {
      const seen = (await found(await probe('terminal'))) as Record<string, string>;
      for (const [name, what] of Object.entries(seen)) expect(what, name).not.toBe('done');
    });
  });

  describe('the call itself', () => {
    tries('daemon', 'takes what it has made into a daemon with it', async () => {
      const seconds = `987651.${process.pid}`;
      expect(await probe('daemon', { seconds })).toMatchObject({ state: State.SUCCEEDED });
      await until('the daemon to be gone', () => processesWith(seconds).length === 0);
    });

    tries('stubborn', 'is killed when it ignores the request to stop', async () => {
      const seconds = `987652.${process.pid}`;
      const stubborn = request('sleeper', { stubborn: true, child: seconds }, {}, 1);
      expect(await execute(executions, stubborn)).toMatchObject({ state: State.TIMED_OUT });
      await until('what it has started to be gone', () => processesWith(seconds).length === 0);
    });

    tries('channel', 'that writes nonsense to the way of its result fails, and nobody else does', async () => {
      const execution = await probe('channel');
      expect(execution.state).toBe(State.FAILED);
      expect(execution.outputJson).toBe('');
    });
  });
}

async function listen(options: { host?: string; port?: number; path?: string }): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, resolve);
  });
  return server;
}
