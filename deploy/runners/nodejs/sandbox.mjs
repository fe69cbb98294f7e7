// Runs a function in a sandbox of Harrier's launcher: the call comes, and the answer goes, in frames over the socket that is
// descriptor 3 (agent/runtime/script_host.py); what the function prints is its output.
import { readSync, writeSync } from 'node:fs';
import { call, describeError } from './call.mjs';

const SOCKET = 3;
const PREFIX_BYTES = 8;
const MAX_STEP_CHARS = 1000;

// A process that is killed when it has answered must have written by then what was printed before.
for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
process.on('uncaughtException', (error) => answerError(error));

send({ type: 'ready' });
const { header, body } = receive();
const { handler, filename, code_bytes: codeBytes, result_bytes: resultBytes } = header;
try {
  const module = { source: body.subarray(0, codeBytes), handler, filename };
  const input = JSON.parse(body.subarray(codeBytes).toString('utf8'));
  send({ type: 'result' }, await call({ module, input, context: contextOf(header.context ?? {}), resultBytes }));
} catch (error) {
  answerError(error);
}

function answerError(error) {
  send({ type: 'error', ...describeError(error) });
}

/** What a function may know about its call, and how it reports progress. */
function contextOf({ execution_id: executionId, attempt, tenant, deadline }) {
  return {
    executionId,
    attempt,
    tenant,
    /** A Date, or null when there is no limit of time. */
    deadline: deadline === null || deadline === undefined ? null : new Date(deadline * 1000),
    /** Tells the caller how far the work is (0 to 100) and what it does; the newest report wins. */
    progress(percent, step = '') {
      if (!(percent >= 0 && percent <= 100)) throw new RangeError(`progress: ${percent} is not between 0 and 100`);
      send({ type: 'progress', percent: Number(percent), step: String(step).slice(0, MAX_STEP_CHARS) });
    },
  };
}

function send(fields, text = '') {
  const head = Buffer.from(JSON.stringify(fields));
  const content = Buffer.from(text);
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(head.length, 0);
  prefix.writeUInt32BE(content.length, 4);
  let rest = Buffer.concat([prefix, head, content]);
  while (rest.length > 0) rest = rest.subarray(writeSync(SOCKET, rest));
}

function receive() {
  const prefix = read(PREFIX_BYTES);
  const head = JSON.parse(read(prefix.readUInt32BE(0)).toString('utf8'));
  return { header: head, body: read(prefix.readUInt32BE(4)) };
}

function read(length) {
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const count = readSync(SOCKET, buffer, filled, length - filled, null);
    if (count === 0) process.exit(1);
    filled += count;
  }
  return buffer;
}
