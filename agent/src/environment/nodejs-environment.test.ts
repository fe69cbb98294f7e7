import { constants, copyFileSync, realpathSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { EnvironmentBuilds } from '../test-support/environment-builds.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { NodejsEnvironment, type NodejsEnvironmentOptions } from './nodejs-environment.ts';

let builds: EnvironmentBuilds;
beforeAll(async () => {
  builds = await EnvironmentBuilds.start();
});
afterAll(() => builds.stop());

function nodejs(options: Partial<NodejsEnvironmentOptions> = {}) {
  const onSupportChange = vi.fn();
  const environment = new NodejsEnvironment({
    searchPath: dirname(process.execPath),
    runs: builds.runs,
    unavailable: () => undefined,
    onSupportChange,
    logger: silentLogger(),
    ...options,
  });
  return { environment, onSupportChange };
}

describe('Node.js in the sandbox', () => {
  test('is there when a call of it has succeeded, and said so', async () => {
    const { environment, onSupportChange } = nodejs();
    expect(environment.unavailable()).toBe('it is still being looked for');
    await environment.look();
    expect(environment.unavailable()).toBeUndefined();
    expect(onSupportChange).toHaveBeenCalledTimes(1);
    const prepared = environment.prepared();
    expect(await environment.prepare()).toBe(prepared);
    expect(prepared?.start?.key).toContain(process.versions.node);
    expect(prepared?.scriptCommand?.(64 * 1024 * 1024)).toContain('--max-old-space-size=64');
    expect(prepared?.scriptCommand?.(0).join(' ')).not.toContain('--max-old-space-size');
  });

  test('is not there without a program on the search path', async () => {
    const { environment, onSupportChange } = nodejs({ searchPath: tempDir() });
    await environment.look();
    expect(environment.unavailable()).toBe('there is no program "node" on its PATH');
    expect(onSupportChange).toHaveBeenCalledTimes(1);
    await expect(environment.prepare()).rejects.toThrow('there is no program "node"');
  });

  test('is not there when the program does not run in the sandbox, with what it says there', async () => {
    const directory = tempDir();
    const program = `${directory}/node`;
    // It tells the two places apart by what only the host has.
    const answer = `echo '["24.0.0","${program}"]'`;
    standInTool(
      directory,
      'node',
      `if [ -e ${directory} ]; then ${answer}; else echo "a library is missing" >&2; exit 1; fi`,
    );
    const { environment } = nodejs({ searchPath: directory });
    await environment.look();
    expect(environment.unavailable()).toMatch(/^Node.js 24\.0\.0 does not run in the sandbox: .*a library is missing/s);
  });

  test('is looked for again when it is gone or another one, and after a while when there is none', async () => {
    const directory = tempDir();
    const program = `${directory}/node`;
    const install = () => copyFileSync(process.execPath, program, constants.COPYFILE_FICLONE);
    install();
    let nowMs = 0;
    const { environment, onSupportChange } = nodejs({ searchPath: directory, nowMs: () => nowMs });
    await environment.look();
    const first = environment.prepared();
    expect(environment.unavailable()).toBeUndefined();

    rmSync(program);
    expect(environment.unavailable()).toMatch(`${realpathSync(directory)}/node is gone`);
    expect(environment.prepared()).toBeUndefined();
    onSupportChange.mockClear();
    await environment.look();
    expect(onSupportChange).toHaveBeenCalled();
    expect(environment.unavailable()).toBe('there is no program "node" on its PATH');

    install();
    expect(environment.unavailable()).toBe('there is no program "node" on its PATH');
    nowMs = 60_000;
    environment.unavailable();
    await environment.look();
    expect(environment.unavailable()).toBeUndefined();
    expect(environment.prepared()?.start?.key).not.toBe(first?.start?.key);

    rmSync(program);
    install();
    expect(environment.unavailable()).toContain('is another one now');
    await environment.look();
    expect(environment.unavailable()).toBeUndefined();
  });

  test('is not looked for without a sandbox', async () => {
    const { environment } = nodejs({ unavailable: () => 'there is no sandbox' });
    await environment.look();
    expect(environment.unavailable()).toBe('there is no sandbox');
  });
});
