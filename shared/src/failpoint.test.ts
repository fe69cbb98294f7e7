import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { armFailpoints } from './failpoint.ts';

/** Passes `result-committed` until it has been passed three times, with failpoints armed. */
function passed(text: string): { signal: NodeJS.Signals | null; passes: number } {
  const file = JSON.stringify(new URL('./failpoint.ts', import.meta.url).pathname);
  const program = `import { armFailpoints, failpoint } from ${file};
    armFailpoints(${JSON.stringify(text)});
    for (let i = 0; i < 3; i++) {
      failpoint('result-committed');
      process.stdout.write('.');
    }`;
  const { signal, stdout } = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program]);
  return { signal, passes: stdout.length };
}

test('a process ends at the armed place, the given time it passes, and nowhere else', () => {
  expect(passed('result-committed')).toEqual({ signal: 'SIGKILL', passes: 0 });
  expect(passed('log-committed,result-committed:3')).toEqual({ signal: 'SIGKILL', passes: 2 });
  expect(passed('result-before-commit')).toEqual({ signal: null, passes: 3 });
});

test('what is no failpoint is said, with those that there are', () => {
  expect(armFailpoints('result-commited')).toMatch(/no failpoint "result-commited"; there are .*result-committed/);
  expect(armFailpoints('result-committed:0')).toMatch(/"result-committed:0"/);
});
