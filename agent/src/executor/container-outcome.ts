import { constants } from 'node:os';
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { parseResponse } from '../docker/container-protocol.ts';
import type { ContainerExit } from '../docker/container-run.ts';
import type { AttemptEnd } from './executor.ts';

/** What ran in a container: a program that follows the container protocol, or a command whose output is its log. */
export type ContainerProgram = 'protocol' | 'command';

/** Why a container was told to end; `lease`: the agent could not reach the control plane. */
export type Ending = 'cancel' | 'timeout' | 'lease';

export interface ContainerEnd {
  program: ContainerProgram;
  exit: ContainerExit;
  ending: Ending | undefined;
  /** The file of a command. */
  file: string;
  /** The engine was lost while the container ran: it may have taken the container along. */
  engineLost: boolean;
  timeoutMs: number;
  memoryBytes: number;
  /** Standard output as far as it was kept, for the protocol. */
  stdout: Uint8Array;
  stdoutTruncated: boolean;
  /** The largest result. */
  outputBytes: number;
}

/** Why an attempt ends with the lease, as the launcher says it too. */
export const LEASE_OVER = 'Its agent could not reach the control plane for longer than it may go on';

export type Outcome = Pick<AttemptEnd, 'outcome' | 'error' | 'exitCode' | 'output'>;

/** By convention, and by the engine's: killed by signal N. */
const SIGNAL_BASE = 128;
const MAX_SIGNAL = 31;
/** How containers end that the engine takes down with itself. */
const ENGINE_STOP_CODES = [128 + constants.signals.SIGKILL, 128 + constants.signals.SIGTERM, 255];
const NO_OUTPUT = new Uint8Array(0);
/** Codes that a container takes from the execution model: they mean the same here, and their details are those of any handler. */
const MODEL_CODES: ReadonlyMap<string, Code> = new Map([
  ['HANDLER_ERROR', Code.HANDLER_ERROR],
  ['OUT_OF_MEMORY', Code.OUT_OF_MEMORY],
  ['INPUT_INVALID', Code.INPUT_INVALID],
  ['OUTPUT_INVALID', Code.OUTPUT_INVALID],
  ['HANDLER_NOT_FOUND', Code.HANDLER_NOT_FOUND],
]);
const SHOWN_CHARS = 200;

/** What an ended container means for its attempt. */
export function containerOutcome(end: ContainerEnd): Outcome {
  const { exit, ending, program } = end;
  const { exitCode } = exit;
  if (ending === 'cancel') return failure('cancelled', Code.CANCELLED, 'cancelled', exitCode);
  if (ending === 'timeout') {
    return failure('timed_out', Code.TIMEOUT, `ran longer than its timeout of ${end.timeoutMs} ms`, exitCode);
  }
  if (ending === 'lease') return failed(Code.AGENT_LOST, LEASE_OVER, exitCode);
  if (end.engineLost && ENGINE_STOP_CODES.includes(exitCode)) {
    return failed(Code.AGENT_LOST, 'the container ended with the Docker engine', exitCode);
  }
  if (exit.oomKilled && exitCode !== 0) {
    return failed(Code.OUT_OF_MEMORY, `used more than its ${end.memoryBytes} bytes of memory`, exitCode);
  }
  if (program === 'protocol') return protocolOutcome(end);
  return exitCode === 0 ? success(NO_OUTPUT) : (notStarted(exitCode, end.file) ?? nonzero(exitCode));
}

function protocolOutcome({ exit: { exitCode }, stdout, stdoutTruncated, outputBytes }: ContainerEnd): Outcome {
  if (stdoutTruncated && exitCode === 0) return tooLarge(outputBytes);
  const response = parseResponse(stdout);
  if (response.kind === 'error') {
    const { code, message, details } = response;
    const known = MODEL_CODES.get(code);
    const own = details === undefined ? {} : { details: details as JsonValue };
    const shown = known === undefined ? { code, ...own } : isJsonObject(details) ? details : own;
    const error = { code: known ?? Code.HANDLER_ERROR, message: message || code, details: shown };
    return { outcome: 'failed', error, exitCode, output: NO_OUTPUT };
  }
  if (exitCode !== 0) return nonzero(exitCode);
  if (response.kind === 'invalid') {
    const start = Buffer.from(stdout.subarray(0, SHOWN_CHARS)).toString('utf8');
    const shown = start === '' ? '' : `; it starts with ${JSON.stringify(start)}`;
    return failed(Code.OUTPUT_INVALID, `${response.problem}${shown}`, exitCode);
  }
  const output = Buffer.from(response.output, 'utf8');
  return output.length > outputBytes ? tooLarge(outputBytes) : success(output);
}

function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Exit codes of shells and of the engine's init for what cannot be executed. */
function notStarted(exitCode: number, file: string): Outcome | undefined {
  if (exitCode === 127) return failed(Code.EXIT_NONZERO, `'${file}': not found`, exitCode);
  if (exitCode === 126) return failed(Code.EXIT_NONZERO, `'${file}': cannot be executed`, exitCode);
  return undefined;
}

function nonzero(exitCode: number): Outcome {
  const signal = exitCode - SIGNAL_BASE;
  if (signal > 0 && signal <= MAX_SIGNAL) {
    return failed(Code.KILLED, `killed by ${signalName(signal)}`, undefined);
  }
  return failed(Code.EXIT_NONZERO, `ended with exit code ${exitCode}`, exitCode);
}

function tooLarge(outputBytes: number): Outcome {
  return failed(Code.OUTPUT_TOO_LARGE, `the output is larger than ${outputBytes} bytes`, 0);
}

function success(output: Uint8Array): Outcome {
  return { outcome: 'succeeded', error: undefined, exitCode: 0, output };
}

function failed(code: Code, message: string, exitCode: number | undefined): Outcome {
  return failure('failed', code, message, exitCode);
}

function failure(outcome: Outcome['outcome'], code: Code, message: string, exitCode: number | undefined): Outcome {
  return { outcome, error: { code, message }, exitCode, output: NO_OUTPUT };
}

function signalName(number: number): string {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`;
}
