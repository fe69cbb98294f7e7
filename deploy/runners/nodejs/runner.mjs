// Runs a function behind Harrier's container protocol: one JSON document comes on standard input, one goes to standard
// output. What the function prints on either stream goes to standard error, which is the log.
import { mkdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Where an image that is made of this one puts its own function. */
const OWN_MODULE = '/app/execute.js';
const OWN_HANDLER = 'executeFunction';
const WORK = '/tmp/harrier-module';

process.stdout.write = process.stderr.write.bind(process.stderr);
// What the function left undone must not keep the answer, and a failure in it must not pass for one.
process.on('uncaughtException', (error) => answerError(error));

try {
  const document = JSON.parse(readFileSync(0, 'utf8'));
  const handler = await load(document.module);
  const output = await handler(document.input);
  if (typeof output !== 'object' || output === null || Array.isArray(output)) {
    throw failure('OUTPUT_INVALID', `the function returned ${describe(output)}, not an object`);
  }
  answer({ ok: true, output });
} catch (error) {
  answerError(error);
}

async function load(module) {
  const name = module?.handler ?? OWN_HANDLER;
  const exported = await import(module === undefined ? OWN_MODULE : writeModule(module));
  // The exports of a CommonJS module are its default export.
  const handler = exported[name] ?? exported.default?.[name];
  if (typeof handler === 'function') return handler;
  throw failure('HANDLER_NOT_FOUND', `the module exports no function "${name}"`);
}

/** Without a package.json beside it, Node.js tells ES modules and CommonJS apart by their syntax. */
function writeModule({ source, filename }) {
  mkdirSync(WORK, { recursive: true });
  const path = join(WORK, /\.[cm]?js$/.test(filename) ? basename(filename) : 'module.js');
  writeFileSync(path, source);
  return pathToFileURL(path).href;
}

function answerError(error) {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : `threw ${describe(error)}`;
  const code = error?.harrierCode ?? 'HANDLER_ERROR';
  answer({
    ok: false,
    error: {
      message: error?.harrierCode === undefined ? message : error.message,
      code,
      details: { type: error?.name ?? typeof error, stack: ownFrames(error?.stack) },
    },
  });
}

/** The answer is complete when the process ends: a pipe takes it in pieces. */
function answer(document) {
  let rest = Buffer.from(stringify(document));
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
  process.exit(0);
}

/** NaN and infinite numbers would silently become null. */
function stringify(document) {
  try {
    return JSON.stringify(document, (key, value) => {
      if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`"${key}" is ${value}`);
      if (typeof value === 'bigint') throw new TypeError(`"${key}" is a bigint`);
      return value;
    });
  } catch (error) {
    return JSON.stringify({ ok: false, error: { message: error.message, code: 'OUTPUT_INVALID', details: {} } });
  }
}

function ownFrames(stack) {
  if (typeof stack !== 'string') return '';
  const lines = stack.split('\n').filter((line) => !line.includes('runner.mjs') && !line.includes('node:internal'));
  return lines.join('\n').replaceAll(`file://${WORK}/`, '');
}

function describe(value) {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : `a value of type ${typeof value}`;
}

function failure(code, message) {
  return Object.assign(new Error(message), { harrierCode: code });
}
