import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { ClusterJob } from '../slurm/job-list.ts';
import type { AttemptEnd } from './executor.ts';

type Outcome = Pick<AttemptEnd, 'outcome' | 'error'>;

/** Why a job was told to end by the agent. */
export type SlurmEnding = 'cancel' | 'shutdown';

/** What is known of a job that has ended without a result of its own, or was ended by Slurm. */
export interface EndedJob {
  jobId: string;
  /** What the cluster says of it; undefined: it does not know it any more. */
  job?: Pick<ClusterJob, 'state' | 'reason' | 'restarts'> | undefined;
  ending: SlurmEnding | undefined;
  /** The node on which the attempt was started; undefined: it was not. */
  node?: string | undefined;
  /** Slurm has put the job back into its queue, or has started it again, although it had started. */
  requeued?: boolean;
  /** What Slurm and the runtime have said in the job. */
  log?: string;
  /** How it ended by its own word, after Slurm had told it to; absent: it has left none. */
  own?: Outcome | undefined;
}

/** What the end of a job means for its attempt, when the attempt has left no result, or one that is owed to Slurm. */
export function slurmOutcome(end: EndedJob): Outcome {
  const { job, ending, jobId, node } = end;
  const where = node === undefined ? '' : ` on ${node}`;
  if (ending === 'cancel') return { outcome: 'cancelled', error: { code: Code.CANCELLED, message: 'cancelled' } };
  if (ending === 'shutdown') return failed(Code.AGENT_LOST, 'the agent was stopped');
  if (job === undefined) {
    return failed(Code.AGENT_LOST, `Slurm does not know job ${jobId} any more, and it has left no result`);
  }
  if (end.requeued || job.restarts > 0 || job.state === 'REQUEUED' || job.state === 'PENDING') {
    return failed(Code.AGENT_LOST, `Slurm has put job ${jobId} back into its queue after it had started`);
  }
  switch (job.state) {
    case 'TIMEOUT':
    case 'DEADLINE': {
      const error = {
        code: Code.TIMEOUT,
        message: `Slurm ended job ${jobId}${where} at its time limit (${job.state})`,
      };
      return { outcome: 'timed_out', error };
    }
    case 'OUT_OF_MEMORY':
      return failed(
        Code.OUT_OF_MEMORY,
        withLog(`Slurm ended job ${jobId}${where}: more memory was needed than it had`, end),
      );
    case 'PREEMPTED':
      return failed(Code.AGENT_LOST, `job ${jobId}${where} had to make room for another one (PREEMPTED)`);
    case 'NODE_FAIL':
    case 'BOOT_FAIL':
      return failed(Code.AGENT_LOST, `the node of job ${jobId} was lost${where} (${job.state})`);
    case 'CANCELLED': {
      const by = job.reason === '' ? '' : ` (${job.reason})`;
      return failed(Code.KILLED, `job ${jobId}${where} was cancelled in Slurm${by}`);
    }
    default:
      return unexplained(end, job.state, where);
  }
}

function unexplained(end: EndedJob, state: string, where: string): Outcome {
  if (end.own !== undefined) return { outcome: end.own.outcome, error: end.own.error };
  if (end.node === undefined) {
    const message = `job ${end.jobId} has ended (${state}) before the attempt was started; is the shared directory there on its node, and Python?`;
    return failed(Code.SUBMIT_FAILED, withLog(message, end));
  }
  return failed(Code.KILLED, withLog(`job ${end.jobId}${where} has ended (${state}) without a result`, end));
}

function withLog(message: string, { log = '' }: EndedJob): string {
  return log === '' ? message : `${message}: ${log}`;
}

function failed(code: Code, message: string): Outcome {
  return { outcome: 'failed', error: { code, message } };
}
