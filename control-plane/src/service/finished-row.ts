import type { FinishedExecution } from '../db/queries/finish-executions.ts';
import type { AttemptLog } from './attempt-log.ts';
import type { AttemptOutcome } from './attempt-outcome.ts';
import type { ResolvedExecution } from './resolved-execution.ts';
import { storable } from './storable.ts';

/** Bytes of the end of each stream that are stored with the execution. */
const TAIL_BYTES = 4096;

/**
 * How an execution ended, as it is stored.
 * @param log the ends of its streams are kept with the result; absent: none
 */
export function finishedRow(
  resolved: ResolvedExecution,
  attempt: number,
  agentId: string | null,
  outcome: AttemptOutcome,
  log: AttemptLog | undefined,
): FinishedExecution {
  return {
    id: resolved.id,
    tenant_id: resolved.tenantId,
    attempt,
    agent_id: agentId,
    state: outcome.state,
    output_json: outcome.outputJson ?? null,
    error_code: outcome.error?.code ?? null,
    error_message: outcome.error?.message ?? null,
    error_details: outcome.error?.details ?? null,
    exit_code: outcome.exitCode ?? null,
    stdout_tail: tailText(log?.stdout.tail(TAIL_BYTES)),
    stderr_tail: tailText(log?.stderr.tail(TAIL_BYTES)),
    stdout_bytes: outcome.stdoutBytes,
    stderr_bytes: outcome.stderrBytes,
    stdout_truncated: outcome.stdoutTruncated,
    stderr_truncated: outcome.stderrTruncated,
    cpu_ms: outcome.cpuMs ?? null,
    max_rss_bytes: outcome.maxRssBytes ?? null,
    prepare_ms: outcome.prepareMs ?? null,
    run_ms: outcome.runMs ?? null,
  };
}

function tailText(bytes: Uint8Array | undefined): string | null {
  return bytes === undefined || bytes.length === 0 ? null : storable(new TextDecoder().decode(bytes));
}
