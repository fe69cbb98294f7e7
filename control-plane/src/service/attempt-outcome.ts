import { documentFault, isFinal, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { AttemptResult } from '@harrier/shared/gen/link';
import { describeFault, parseAnyJsonObject, showable } from './json-document.ts';
import { violationsOf } from './json-schema.ts';
import type { ResolvedExecution } from './resolved-execution.ts';
import { storable } from './storable.ts';

/** How an attempt ended, as the control plane judges it. */
export interface AttemptOutcome {
  /** A final state. */
  state: State;
  outputJson: string | undefined;
  error: { code: Code; message: string; details: string | undefined } | undefined;
  exitCode: number | undefined;
  stdoutBytes: number;
  stderrBytes: number;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
  cpuMs: number | undefined;
  maxRssBytes: number | undefined;
  prepareMs: number | undefined;
  runMs: number | undefined;
}

const KNOWN_CODES: ReadonlySet<number> = new Set(Object.values(Code).filter((code) => code !== Code.CODE_UNSPECIFIED));

/** A figure that the database can hold; undefined for one that cannot be. */
function measured(value: number | bigint | undefined): number | undefined {
  const number = Number(value);
  return number >= 0 && number <= Number.MAX_SAFE_INTEGER ? number : undefined;
}

/** The outcome that an agent reports, checked: an agent's word is not taken for what can be looked at. */
export function outcomeOfResult(result: AttemptResult, resolved: ResolvedExecution): AttemptOutcome {
  const reported: AttemptOutcome = {
    state: isFinal(result.state) ? result.state : State.FAILED,
    outputJson: undefined,
    error: undefined,
    exitCode: result.exitCode,
    stdoutBytes: measured(result.stdoutBytes) ?? 0,
    stderrBytes: measured(result.stderrBytes) ?? 0,
    stdoutTruncated: result.stdoutTruncated,
    stderrTruncated: result.stderrTruncated,
    cpuMs: measured(result.usage?.cpuMs),
    maxRssBytes: measured(result.usage?.maxRssBytes),
    prepareMs: measured(result.prepareMs),
    runMs: measured(result.runMs),
  };
  if (reported.state === State.SUCCEEDED) return withOutput(reported, result.outputJson, resolved);
  const details = result.error?.details;
  reported.error = {
    code: KNOWN_CODES.has(result.error?.code ?? Code.CODE_UNSPECIFIED)
      ? (result.error?.code ?? Code.INTERNAL)
      : Code.INTERNAL,
    message: storable(result.error?.message ?? 'the agent gave no reason'),
    details: details === undefined ? undefined : storableJson(showable(details)),
  };
  return reported;
}

function withOutput(reported: AttemptOutcome, bytes: Uint8Array, resolved: ResolvedExecution): AttemptOutcome {
  if (bytes.length > Number(resolved.limits.outputBytes)) {
    return failed(reported, Code.OUTPUT_TOO_LARGE, `the output has ${bytes.length} bytes`);
  }
  if (bytes.length === 0) return { ...reported, outputJson: '{}' };
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    const value = parseAnyJsonObject(text, 'output');
    const fault = documentFault(value);
    if (fault !== undefined) return failed(reported, Code.OUTPUT_INVALID, `output: ${describeFault(fault)}`);
    const module = resolved.program.kind === 'module' ? resolved.program.stored.module : undefined;
    if (module?.outputSchema !== undefined) {
      const violations = violationsOf(module.outputSchema, `${module.digest} output`, value, bytes.length);
      if (violations !== undefined) {
        return failed(
          reported,
          Code.OUTPUT_INVALID,
          `the output does not satisfy the schema of the module: ${violations}`,
        );
      }
    }
    return { ...reported, outputJson: text };
  } catch (error) {
    return failed(reported, Code.OUTPUT_INVALID, messageOf(error));
  }
}

function failed(reported: AttemptOutcome, code: Code, message: string): AttemptOutcome {
  return { ...reported, state: State.FAILED, error: { code, message: storable(message), details: undefined } };
}

/** The outcome of an attempt that has no result: its agent is gone, or refused it. */
export function outcomeWithoutResult(
  code: Code,
  message: string,
  written: { stdout: number; stderr: number },
): AttemptOutcome {
  return {
    state: code === Code.CANCELLED ? State.CANCELLED : State.FAILED,
    outputJson: undefined,
    error: { code, message: storable(message), details: undefined },
    exitCode: undefined,
    stdoutBytes: written.stdout,
    stderrBytes: written.stderr,
    stdoutTruncated: false,
    stderrTruncated: false,
    cpuMs: undefined,
    maxRssBytes: undefined,
    prepareMs: undefined,
    runMs: undefined,
  };
}

function storableJson(value: unknown): string {
  return JSON.stringify(value).replaceAll('\\u0000', '\\ufffd');
}
