import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { refusalScript, renderInstallScript } from './install-script.ts';

const TEMPLATE = readFileSync(new URL('../../../../deploy/agent/install.sh', import.meta.url), 'utf8');
const FACTS = { version: '1.2.3', serverUrl: 'http://[::1]:8000', sha256: { x64: 'ab12', arm64: undefined } };

test('the installer knows its version, its control plane and the digests', () => {
  const script = renderInstallScript(TEMPLATE, FACTS);
  // All but the last line are definitions.
  const shown = `${script.trimEnd().split('\n').slice(0, -1).join('\n')}
printf '%s ' "$BAKED_VERSION" "$BAKED_SERVER_URL" "$BAKED_SHA256_X64" "[$BAKED_SHA256_ARM64]"`;
  expect(execFileSync('sh', { input: shown, encoding: 'utf8' })).toBe('1.2.3 http://[::1]:8000 ab12 [] ');
});

test('whatever part of the installer arrives, nothing is done before the end', () => {
  const lines = renderInstallScript(TEMPLATE, FACTS).trimEnd().split('\n');
  expect(lines.at(-1)).toBe('main "$@"');
  // Parsed as far as it goes: what is not closed is an error, what is closed is a definition.
  for (let end = 1; end < lines.length; end += 7) {
    const { stdout, stderr } = spawnSync('sh', { input: lines.slice(0, end).join('\n'), encoding: 'utf8' });
    expect(stdout).toBe('');
    expect(stderr).not.toContain('harrier-agent:');
  }
});

test.each(["1'; reboot; '", '$(reboot)', 'a\nb', 'a b'])('%j is not written into a script', (version) => {
  expect(() => renderInstallScript(TEMPLATE, { ...FACTS, version })).toThrow(/BAKED_VERSION cannot be written/);
});

test('a refusal ends the shell that it is given to, and says why', () => {
  const script = refusalScript("there is no agent 'x'\n$(reboot)");
  const { status, stdout, stderr } = spawnSync('sh', { input: script, encoding: 'utf8' });
  expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: '', stderr: 'there is no agent ?x??$(reboot)\n' });
});
