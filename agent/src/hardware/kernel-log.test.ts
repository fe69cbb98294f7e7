import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from '@harrier/shared';
import { expect, onTestFinished, test, vi } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { testdata } from '../test-support/testdata.ts';
import { KernelLog } from './kernel-log.ts';
import { parseXid } from './xid.ts';

const EVENTS = testdata('kmsg-xid.txt')
  .split('\n')
  .map(parseXid)
  .filter((event) => event !== undefined);

/** A host whose kernel's log may not be read, with the tool of a directory. */
function journalLog(directory: string, logger: Logger = silentLogger()): KernelLog {
  return new KernelLog({ searchPath: `${directory}:/usr/bin:/bin`, path: '/does/not/exist', logger });
}

test('the log is read to its end once, and then what comes', async () => {
  const path = join(tempDir(), 'kmsg');
  writeFileSync(path, testdata('kmsg-xid.txt'));
  const log = new KernelLog({ searchPath: '/does/not/exist', path, logger: silentLogger() });
  onTestFinished(() => log.close());
  expect(await log.news()).toEqual(EVENTS);
  expect(await log.news()).toEqual([]);
  appendFileSync(path, '3,1400,150000000,-;NVRM: Xid (PCI:0000:1b:00): 48, pid=1, Double Bit ECC Error\n');
  expect(await log.news()).toMatchObject([{ code: 48, atUs: 150_000_000 }]);
});

test('where the log cannot be read the journal is asked', async () => {
  const directory = tempDir();
  const line =
    "[ 1234.567890] host kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.";
  standInTool(directory, 'journalctl', `cat <<'END'\n${line}\nEND`);
  const log = journalLog(directory);
  expect(await log.news()).toMatchObject([{ code: 79, atUs: 1_234_567_890 }]);
  expect(await log.news(), 'it is not asked again at once').toEqual([]);
});

/** Prints errors of programs, and after them that the card is lost. Further lines are given to the tool as they are. */
function faultLines(count: number): string {
  const fault =
    'NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=python3, MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted';
  return `yes '[   10.000000] host kernel: ${fault}' | head -n ${count}
echo '[99999.000001] host kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.'`;
}

test('thousands of errors since the boot hide none of them', async () => {
  const directory = tempDir();
  standInTool(directory, 'journalctl', faultLines(5_000));
  const events = (await journalLog(directory).news()) ?? [];
  expect(events).toHaveLength(5_001);
  expect(events.at(-1)).toMatchObject({ code: 79 });
});

test('of more than can be read the newest are told, in order', async () => {
  const directory = tempDir();
  // With a pattern and a number the journal's tool begins with the newest.
  standInTool(
    directory,
    'journalctl',
    `case "$*" in
*'-n 1000'*)
echo '[   12.000000] host kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.'
echo '[   11.000000] host kernel: NVRM: Xid (PCI:0000:3b:00): 31, pid=7';;
*) ${faultLines(1_000_000)};;
esac`,
  );
  expect(await journalLog(directory).news()).toMatchObject([{ code: 31 }, { code: 79 }]);
});

test('the journal is read on from where it was read to, and from its end when that is there no more', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  const directory = tempDir();
  const xid = (code: number) => `echo '[   10.000000] host kernel: NVRM: Xid (PCI:0000:3b:00): ${code}, text'`;
  standInTool(
    directory,
    'journalctl',
    `case "$*" in
*'-n 1000'*) ${xid(3)};;
*'--show-cursor --after-cursor s=1;i=a'*) ${xid(2)}; echo '-- cursor: s=1;i=b';;
*'--show-cursor --after-cursor s=1;i=b'*) exit 1;;
*--after-cursor*) echo 'Failed to seek to cursor' >&2; exit 1;;
*) ${xid(1)}; echo '-- cursor: s=1;i=a';;
esac`,
  );
  const log = journalLog(directory);
  const codes = async () => {
    const events = await log.news();
    vi.advanceTimersByTime(60_000);
    return events?.map(({ code }) => code);
  };
  expect(await codes()).toEqual([1]);
  expect(await codes()).toEqual([2]);
  expect(await codes(), 'nothing new').toEqual([]);
  standInTool(
    directory,
    'journalctl',
    `case "$*" in
*'-n 1000'*) ${xid(3)};;
*'--after-cursor s=1;i=b'*) echo 'Failed to seek to cursor' >&2; exit 1;;
*) ${xid(4)};;
esac`,
  );
  expect(await codes()).toEqual([3]);
  expect(await codes(), 'it begins anew').toEqual([4]);
});

test('where neither can be read nothing is known, and that is logged once', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  const directory = tempDir();
  const logger = silentLogger();
  const warn = vi.spyOn(logger, 'warn');
  standInTool(
    directory,
    'journalctl',
    `echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1`,
  );
  const log = journalLog(directory, logger);
  expect(await log.news()).toBeUndefined();
  vi.advanceTimersByTime(60_000);
  expect(await log.news()).toBeUndefined();
  expect(warn.mock.calls).toEqual([
    [
      {
        kernelLog: expect.stringContaining('/does/not/exist'),
        journal: 'ended with 1: No journal files were opened due to insufficient permissions.',
      },
      expect.stringContaining('systemd-journal'),
    ],
  ]);
});
