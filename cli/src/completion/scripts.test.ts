import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { createProgram } from '../program.ts';
import { completionScript, SHELLS } from './scripts.ts';

/** What bash offers at the end of a line. */
function complete(line: string): string[] {
  const words = line.split(' ');
  const script = `${completionScript('bash', createProgram())}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}
_harrier; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', script], { encoding: 'utf8' });
  expect(stderr).toBe('');
  return stdout.trim().split('\n');
}

describe('completion in bash', () => {
  it.each([
    ['harrier exec', ['exec', 'executions']],
    ['harrier modules ', ['push', 'ls', 'rm']],
    ['harrier modules l', ['ls']],
    ['harrier executions ls --st', ['--state']],
    ['harrier workflows runs --s', ['--state', '--selector', '--since']],
    ['harrier run --fol', ['--follow']],
    ['harrier run my-module --time', ['--timeout']],
  ])('%s', (line, candidates) => {
    expect(complete(line)).toEqual(expect.arrayContaining(candidates));
  });
});

it.each(SHELLS)('makes a script for %s that knows every command', (shell) => {
  const script = completionScript(shell, createProgram());
  for (const word of ['up', 'server', 'agent', 'run', 'exec', 'logs', 'executions', 'modules', 'agents', 'token']) {
    expect(script).toContain(word);
  }
});
