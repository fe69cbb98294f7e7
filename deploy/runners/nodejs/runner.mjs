// Runs a function behind Harrier's container protocol: one JSON document comes on standard input, one goes to standard
// output. What the function prints on either stream goes to standard error, which is the log.
import { readFileSync, writeSync } from 'node:fs';
import { call, describeError } from './call.mjs';

process.stdout.write = process.stderr.write.bind(process.stderr);
// What the function left undone must not keep the answer, and a failure in it must not pass for one.
process.on('uncaughtException', (error) => answerError(error));

try {
  const { module, input } = JSON.parse(readFileSync(0, 'utf8'));
  answer(`{"ok":true,"output":${await call({ module, input })}}`);
} catch (error) {
  answerError(error);
}

function answerError(error) {
  answer(JSON.stringify({ ok: false, error: describeError(error) }));
}

/** The answer is complete when the process ends: a pipe takes it in pieces. */
function answer(text) {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
  process.exit(0);
}
