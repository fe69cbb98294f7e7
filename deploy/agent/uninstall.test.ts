import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';

const DEFINITIONS = readFileSync(new URL('install.sh', import.meta.url), 'utf8')
  .trimEnd()
  .replace(/\n[^\n]*$/, '\n');

let root: string;
const at = (...names: string[]): string => join(root, ...names);

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'harrier-uninstall-'));
  const path = root;
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  for (const name of ['opt/agent', 'etc', 'units']) mkdirSync(at(name), { recursive: true });
  const attempts = { 'e1.1': '"4711"', 'e2.3': '"4712"', 'e3.1': '"1; reboot"', 'e4.1': undefined };
  for (const [name, job] of Object.entries(attempts)) {
    mkdirSync(at('data/slurm/attempts', name), { recursive: true });
    if (job !== undefined) writeFileSync(at('data/slurm/attempts', name, 'job.json'), job);
  }
});

/** Uninstalls in a tree of its own; every command that was run for it is in `calls`. */
function uninstall({ flags = '', before = '' }: { flags?: string; before?: string }) {
  const script = `${DEFINITIONS}
ROOT=${root}/opt AGENTS=${root}/opt/agent CTL=${root}/opt/bin/harrier-agent-ctl
SETTINGS=${root}/etc/agent.env DATA=${root}/data LOGS=${root}/logs UNIT_DIRECTORY=${root}/units
note() { echo "$*" >>${root}/calls; }
take_lock() { :; }
agent_id() { :; }
remove_containers() { :; }
rm() { case "$*" in *" ${root}/data") note "rm data" ;; esac; case "$*" in */run/*) ;; *) command rm "$@" ;; esac; }
systemctl() { note "systemctl $1"; }
runuser() { shift 3; "$@"; }
timeout() { shift 3; note "$@"; }
id() { :; }
getent() { [ ! -e ${root}/user-is-gone ]; }
userdel() { : >${root}/user-is-gone; }
groupdel() { note "groupdel $1"; }
${before}
do_uninstall ${flags}
`;
  const { status, stdout, stderr } = spawnSync('sh', ['-s'], { input: script, encoding: 'utf8' });
  const calls = existsSync(at('calls')) ? readFileSync(at('calls'), 'utf8').trim().split('\n') : [];
  return { status, stdout, stderr, calls };
}

test.each(['', '--keep-data'])('jobs of Slurm are cancelled before they are forgotten: uninstall %s', (flags) => {
  writeFileSync(at('etc/agent.env'), 'SLURM_CONF="/etc/cluster.conf"\n');
  const { status, calls } = uninstall({ flags });
  expect(status).toBe(0);
  const scancel = calls.filter((call) => call.includes('scancel'));
  expect(scancel).toEqual(['SLURM_CONF=/etc/cluster.conf scancel --quiet 4711 4712']);
  if (flags === '') expect(calls.indexOf('rm data')).toBeGreaterThan(calls.indexOf(scancel[0] ?? ''));
  expect(existsSync(at('data'))).toBe(flags !== '');
});

test('jobs that have ended are no trouble, and a cluster that does not answer is told', () => {
  const said = (text: string): string => `timeout() { echo "${text}" >&2; return 1; }`;
  const over = uninstall({ flags: '--keep-data', before: said('scancel: error: Invalid job id 4711') });
  expect(over).toMatchObject({ status: 0, stderr: '' });
  const away = uninstall({ before: said('scancel: error: Unable to contact slurm controller') });
  expect(away).toMatchObject({ status: 0, stderr: expect.stringContaining('Unable to contact slurm controller') });
  expect(existsSync(at('data'))).toBe(false);
});

test('a user that cannot be removed is told, and the rest is removed all the same', () => {
  const before = 'userdel() { echo "user is currently used by process 7" >&2; return 8; }';
  const { status, stdout, stderr, calls } = uninstall({ before });
  expect(status).toBe(0);
  expect(stderr).toContain('the user harrier-agent could not be removed');
  expect(stdout).toContain('harrier-agent: removed');
  expect(calls).not.toContain('groupdel harrier-agent');
  expect([existsSync(at('data')), existsSync(at('opt'))]).toEqual([false, false]);
});

test('what a killed change of the settings has left is removed, whatever is kept', () => {
  writeFileSync(at('etc/agent.env'), 'HARRIER_SERVER_URL="http://a"\n');
  writeFileSync(at('etc/agent.env.new'), 'HARRIER_JOIN_TOKEN="hj_secret"\n');
  uninstall({ flags: '--keep-data' });
  expect([existsSync(at('etc/agent.env')), existsSync(at('etc/agent.env.new'))]).toEqual([true, false]);
});
