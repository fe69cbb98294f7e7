import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';

/** The installer's definitions. A booted system does the same in test/systemd; here it is killed at one step or another. */
const DEFINITIONS = readFileSync(new URL('install.sh', import.meta.url), 'utf8')
  .trimEnd()
  .replace(/\n[^\n]*$/, '\n');
const OLD = 'old-is-well';
const NEW = 'new-content';
const former = `1.0-${'a'.repeat(12)}`;
const settings = 'HARRIER_SERVER_URL="http://control"\nHARRIER_JOIN_TOKEN="hj_former"\n';

let root: string;
const at = (...names: string[]): string => join(root, ...names);
const agents = (...names: string[]): string => at('opt/agent', ...names);

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'harrier-install-'));
  onTestFinishedRemove(root);
  for (const name of ['opt/agent', 'etc', 'units', 'data', 'served']) mkdirSync(at(name), { recursive: true });
  layOut(agents(former), OLD, 'a'.repeat(64));
  symlinkSync(former, agents('current'));
  writeFileSync(at('etc/agent.env'), settings, { mode: 0o600 });
  writeFileSync(at('running'), OLD);
});

function onTestFinishedRemove(path: string): void {
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
}

/** What is in a bundle, as far as the installer looks. */
function layOut(directory: string, content: string, sha256?: string): void {
  for (const name of ['bin', 'systemd']) mkdirSync(join(directory, name), { recursive: true });
  writeFileSync(join(directory, 'bin/node'), '#!/bin/sh\n');
  chmodSync(join(directory, 'bin/node'), 0o755);
  writeFileSync(join(directory, 'content'), content);
  for (const unit of ['harrier-agent.service', 'harrier-launcher.service'])
    writeFileSync(join(directory, 'systemd', unit), `# ${content}\n`);
  if (sha256 !== undefined) writeFileSync(join(directory, '.sha256'), `${sha256}\n`);
}

/** Has the control plane hand out a version. @returns its checksum */
function serve(version: string, content: string): string {
  layOut(at('served', 'harrier-agent'), content);
  const name = `harrier-agent-${version}-linux-x64.tar.gz`;
  spawnSync('tar', ['-czf', at('served', name), '-C', at('served'), 'harrier-agent']);
  return createHash('sha256')
    .update(readFileSync(at('served', name)))
    .digest('hex');
}

interface Run {
  command: string;
  version?: string;
  sha256?: string;
  /** Contents with which an agent gets well. */
  well?: readonly string[];
  /** Shell text in front of the command, after the definitions. */
  before?: string;
}

/** Runs a command of the installer in its own tree, with a system that starts what `current` holds. */
function run({ command, version = '', sha256 = '', well = [], before = '' }: Run) {
  const script = `${DEFINITIONS}
ROOT=${root}/opt AGENTS=${root}/opt/agent CTL=${root}/opt/bin/harrier-agent-ctl
UPGRADING=$AGENTS/.upgrading FORMER_SETTINGS=$AGENTS/.upgrading.env
SETTINGS=${root}/etc/agent.env DATA=${root}/data LOGS=${root}/logs UNIT_DIRECTORY=${root}/units
DEFAULT_WAIT=0 SETTLE=0 LAUNCHER_WAIT=0
BAKED_VERSION='${version}' BAKED_SERVER_URL=https://control BAKED_SHA256_X64='${sha256}'
require_systemd() { :; }
architecture() { echo x64; }
take_lock() { :; }
ensure_packages() { :; }
check_python() { :; }
check_sandbox() { :; }
make_account() { :; }
agent_id() { echo joined; }
journalctl() { :; }
fetch() { cp ${root}/served/"\${1##*/}" "$2"; }
stat() { echo '0 drwxr-xr-x'; }
systemctl() { if [ "$1" = restart ]; then cp "$AGENTS/current/content" ${root}/running; fi; }
is_well() { case ' ${well.join(' ')} ' in *" $(cat ${root}/running) "*) ;; *) return 1 ;; esac; }
is_linked() { is_well; }
property() { echo active; }
${before}
${command}
`;
  const { status, signal, stdout, stderr } = spawnSync('sh', ['-s'], { input: script, encoding: 'utf8' });
  return { status, signal, stdout, stderr };
}

const current = (): string => readlinkSync(agents('current'));
const running = (): string => readFileSync(at('running'), 'utf8');
const kept = (): string[] => readdirSync(agents()).toSorted();
/** Dies without a chance to clean up, as by SIGKILL or a power supply, where the function would have been called. */
const killedAt = (name: string): string => `${name}() { kill -KILL $$; exit 1; }`;

test('an upgrade that gets well leaves the version before, and nothing else', () => {
  const sha256 = serve('2.0', NEW);
  const done = run({ command: 'do_upgrade', version: '2.0', sha256, well: [OLD, NEW] });
  expect(done).toMatchObject({ status: 0, stdout: expect.stringContaining('harrier-agent: 2.0: active') });
  expect(running()).toBe(NEW);
  expect(kept()).toEqual([former, `2.0-${sha256.slice(0, 12)}`, 'current']);
});

test.each([
  ['before the switch', killedAt('switch_to')],
  ['between the switch and the restart', 'systemctl() { [ "$1" != daemon-reload ] || kill -KILL $$; }'],
  ['while it waits', killedAt('wait_until_well')],
])('an upgrade that was killed %s is finished by the next one', (_, before) => {
  const sha256 = serve('2.0', NEW);
  const options = { command: 'do_upgrade', version: '2.0', sha256, well: [OLD, NEW] };
  expect(run({ ...options, before }).signal).toBe('SIGKILL');
  expect(run({ command: 'do_status' }).stderr).toContain('"harrier-agent-ctl upgrade" finishes it');
  expect(run(options)).toMatchObject({ status: 0, stderr: expect.stringContaining(`from ${former} was cut short`) });
  expect(running()).toBe(NEW);
  expect(kept()).toEqual([former, `2.0-${sha256.slice(0, 12)}`, 'current']);
});

test.each([
  ['between the switch and the restart', 'systemctl() { [ "$1" != daemon-reload ] || kill -KILL $$; }'],
  ['while it waits', killedAt('wait_until_well')],
  ['while it goes back', killedAt('go_back')],
])('an upgrade to an agent that does not get well, killed %s, is taken back by the next one', (_, before) => {
  const options = { command: 'do_upgrade', version: '2.0', sha256: serve('2.0', NEW), well: [OLD] };
  expect(run({ ...options, before }).signal).toBe('SIGKILL');
  const done = run(options);
  expect(done).toMatchObject({ status: 1, stderr: expect.stringContaining(`went back to ${former}, which is linked`) });
  expect([current(), running()]).toEqual([former, OLD]);
  expect(kept()).toEqual([former, 'current']);
  expect(readFileSync(at('units/harrier-agent.service'), 'utf8')).toBe(`# ${OLD}\n`);
});

test('the version that is there is restarted when it is not well, and the exit code says how it fares', () => {
  const sha256 = serve('2.0', NEW);
  run({ command: 'do_upgrade', version: '2.0', sha256, well: [NEW] });
  const again = { command: 'do_upgrade', version: '2.0', sha256 };
  writeFileSync(at('running'), 'hangs');
  expect(run({ ...again, well: [NEW] })).toMatchObject({ status: 0 });
  expect(running()).toBe(NEW);
  expect(run(again)).toMatchObject({ status: 1, stderr: expect.stringContaining('2.0 is installed, but not linked') });
});

test('the same version with other content lies beside the one that runs, which can be gone back to', () => {
  const first = serve('2.0', OLD);
  run({ command: 'do_upgrade', version: '2.0', sha256: first, well: [OLD] });
  const second = serve('2.0', NEW);
  const options = { command: 'do_upgrade', version: '2.0', sha256: second, well: [OLD] };
  // Where the installer moves anything: there is an agent whole at each of these moments.
  const whole = 'mv() { test -x "$AGENTS/current/bin/node" || echo torn >&2; command mv "$@"; }';
  const done = run({ ...options, before: whole });
  expect(done.stderr).toContain(`went back to 2.0-${first.slice(0, 12)}, which is linked again`);
  expect(done.stderr).not.toContain('torn');
  expect([done.status, current(), running()]).toEqual([1, `2.0-${first.slice(0, 12)}`, OLD]);
});

test('what is unpacked is on the disk before it gets its name', () => {
  const before = 'sync() { case "$*" in "-f $WORK/new") ls "$AGENTS" >&2; kill -KILL $$ ;; esac; }';
  const done = run({ command: 'do_upgrade', version: '2.0', sha256: serve('2.0', NEW), well: [OLD], before });
  expect(done).toMatchObject({ signal: 'SIGKILL', stderr: `${former}\ncurrent\n` });
  expect([current(), running()]).toEqual([former, OLD]);
});

test('an installation that goes back brings the settings back, too', () => {
  const command = 'do_install --set HARRIER_AGENT_LABELS=zone=eu';
  const options = { command, version: '2.0', sha256: serve('2.0', NEW) };
  expect(run({ ...options, well: [OLD] })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('went back to'),
  });
  expect(readFileSync(at('etc/agent.env'), 'utf8')).toBe(settings);
  expect(run({ ...options, well: [OLD, NEW] })).toMatchObject({ status: 0 });
  const now = readFileSync(at('etc/agent.env'), 'utf8');
  expect(now).toBe('HARRIER_SERVER_URL="https://control"\nHARRIER_AGENT_LABELS="zone=eu"\n');
  expect(statSync(at('etc/agent.env')).mode & 0o777).toBe(0o600);
  expect(readdirSync(at('etc'))).toEqual(['agent.env']);
});

test('an installation that was killed after it had changed the settings goes back to the former ones', () => {
  const command = 'do_install --set HARRIER_AGENT_LABELS=zone=eu';
  const options = { command, version: '2.0', sha256: serve('2.0', NEW), well: [OLD] };
  expect(run({ ...options, before: killedAt('switch_to') }).signal).toBe('SIGKILL');
  expect(readFileSync(at('etc/agent.env'), 'utf8')).toContain('zone=eu');
  expect(statSync(agents('.upgrading.env')).mode & 0o777).toBe(0o600);
  expect(run({ ...options, command: 'do_upgrade' })).toMatchObject({ status: 1 });
  expect(readFileSync(at('etc/agent.env'), 'utf8')).toBe(settings);
  expect(kept()).toEqual([former, 'current']);
});

test('what was killed while it wrote settings or unpacked leaves nothing behind for long', () => {
  const sha256 = serve('2.0', NEW);
  const inWriting = { command: 'do_install', version: '2.0', sha256, well: [OLD, NEW] };
  const before = 'sync() { [ "$1" != "$SETTINGS.new" ] || { kill -KILL $$; exit 1; }; }';
  expect(run({ ...inWriting, before }).signal).toBe('SIGKILL');
  expect(statSync(at('etc/agent.env.new')).mode & 0o777).toBe(0o600);
  expect(readdirSync(agents()).filter((name) => name.startsWith('.work-'))).toHaveLength(1);
  // Of a process that lives: this one.
  mkdirSync(agents(`.work-${process.pid}-abcdef`));
  expect(run(inWriting)).toMatchObject({ status: 0 });
  expect(readdirSync(at('etc'))).toEqual(['agent.env']);
  expect(kept()).toEqual([`.work-${process.pid}-abcdef`, former, `2.0-${sha256.slice(0, 12)}`, 'current'].toSorted());
});
