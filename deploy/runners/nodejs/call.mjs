// Calls a function of a module, and says what came of it; what brings the call and takes the answer is in `runner.mjs`
// (containers) and `sandbox.mjs`.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { encodeResult, NotJson } from './result-json.mjs';

/** Where an image that is made of the runner's puts its own function. */
const OWN_MODULE = '/app/execute.js';
const OWN_HANDLER = 'executeFunction';
/** What the control plane takes for the name of a handler where none is named. */
const DEFAULT_HANDLER = 'handler';
const WORK = '/tmp/harrier-module';
const RUNNER = dirname(fileURLToPath(import.meta.url));
const MAX_MESSAGE_CHARS = 8 * 1024;
const MAX_TRACEBACK_CHARS = 64 * 1024;
const MAX_CAUSES = 5;

/** A call that failed for a reason that has a code of the execution model. */
class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Loads the module and calls its function.
 * @param call {module?: {source, handler, filename}, input, context?, resultBytes?}; without a module, that of the image
 * @returns JSON text of the output
 */
export async function call({ module, input, context, resultBytes }) {
  const path = module === undefined ? OWN_MODULE : write(module);
  const handler = await load(path, module);
  return encode(await Promise.race([handler(input, context), nothingLeft()]), resultBytes);
}

/** Rejects when the function waits for what can no longer come. */
function nothingLeft() {
  const message = 'the function has not returned, and there is nothing left that it could wait for';
  return new Promise((_, reject) => {
    process.once('beforeExit', () => reject(new Failure('HANDLER_ERROR', message)));
  });
}

/** `{code, message, details: {type, traceback}}` of what was thrown. */
export function describeError(error) {
  if (error instanceof Failure) return { code: error.code, message: error.message, details: {} };
  if (isOutOfMemory(error)) return { code: 'OUT_OF_MEMORY', message: textOf(error), details: {} };
  const details = { type: typeOf(error), traceback: cut(traceback(error), MAX_TRACEBACK_CHARS) };
  return { code: 'HANDLER_ERROR', message: cut(textOf(error), MAX_MESSAGE_CHARS), details };
}

/** Without a package.json beside it, Node.js tells ES modules and CommonJS apart by their syntax. */
function write({ source, filename }) {
  mkdirSync(WORK, { recursive: true });
  const path = join(WORK, /\.[cm]?js$/.test(filename) ? basename(filename) : 'module.js');
  writeFileSync(path, source);
  return path;
}

async function load(path, module) {
  const exported = await import(pathToFileURL(path).href).catch((error) => {
    throw error instanceof SyntaxError ? withPlace(error, path) : error;
  });
  const name = module?.handler ?? OWN_HANDLER;
  const handler = find(exported, name) ?? (name === DEFAULT_HANDLER ? find(exported, OWN_HANDLER) : undefined);
  const file = basename(path);
  if (handler === undefined) throw new Failure('HANDLER_NOT_FOUND', `${file} exports no function "${name}"`);
  if (typeof handler === 'function') return handler;
  throw new Failure('HANDLER_NOT_FOUND', `"${name}" in ${file} is ${describe(handler)}, not a function`);
}

/** The exports of a CommonJS module are its default export. */
function find(exported, name) {
  return exported[name] ?? exported.default?.[name];
}

/** Only Node.js itself, when it is to run the file, says where the syntax is wrong. */
function withPlace(error, path) {
  if (String(error.stack).includes(path)) return error;
  try {
    execFileSync(process.execPath, [...process.execArgv, '--check', path], { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (checked) {
    const [place] = String(checked.stderr).split(/^\w*Error: /m);
    if (place.includes(path)) error.stack = `${place.trimEnd()}\n${error.name}: ${error.message}`;
  }
  return error;
}

function encode(output, resultBytes) {
  const text = textOfResult(output);
  const bytes = Buffer.byteLength(text);
  if (!resultBytes || bytes <= resultBytes) return text;
  throw new Failure('OUTPUT_TOO_LARGE', `The result has ${bytes} bytes of JSON, the limit is ${resultBytes}`);
}

function textOfResult(output) {
  try {
    return encodeResult(output);
  } catch (error) {
    if (error instanceof NotJson) {
      throw new Failure('OUTPUT_INVALID', `The handler's result is not JSON: ${error.message}`);
    }
    throw error;
  }
}

/** What V8 and Node.js say when the operating system gives no more. */
function isOutOfMemory(error) {
  if (!(error instanceof RangeError)) return false;
  return error.message === 'Array buffer allocation failed' || error.code === 'ERR_MEMORY_ALLOCATION_FAILED';
}

function textOf(error) {
  if (!(error instanceof Error)) return `threw ${inspect(error)}`;
  return error.message === '' ? error.name : `${error.name}: ${error.message}`;
}

function typeOf(error) {
  return error instanceof Error ? (error.constructor?.name ?? error.name) : typeof error;
}

/** The stack as Node.js has it, with the frames of the module alone, and the same of what caused it. */
function traceback(error) {
  const parts = [];
  for (let at = error; at instanceof Error && parts.length < MAX_CAUSES; at = at.cause) parts.push(ownFrames(at.stack));
  return parts.join('\nCaused by: ');
}

function ownFrames(stack) {
  if (typeof stack !== 'string') return '';
  return stack
    .split('\n')
    .filter((line) => !/^\s+at /.test(line) || !(line.includes(RUNNER) || /[( ]node:/.test(line)))
    .join('\n')
    .replaceAll(`${pathToFileURL(WORK).href}/`, '')
    .replaceAll(`${WORK}/`, '');
}

function describe(value) {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : `a value of type ${typeof value}`;
}

function cut(text, limit) {
  return text.length <= limit ? text : `${text.slice(0, limit / 2)}\n… cut …\n${text.slice(-limit / 2)}`;
}
