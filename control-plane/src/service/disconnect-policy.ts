import { HarrierError } from '@harrier/shared';
import { type Module, Module_OnDisconnect as OnDisconnect } from '@harrier/shared/gen/module';
import { millisecondsOf } from './duration.ts';

/** Where a module that runs on without the control plane does not say for how long. */
const DEFAULT_MAX_DISCONNECT_MS = 3_600_000;

/** A job of a cluster does not run on the agent's host, and goes on while that is repaired. */
const DEFAULT_JOB_DISCONNECT_MS = 86_400_000;

type Policy = Pick<Module, 'onDisconnect' | 'maxDisconnect'>;

/** @throws HarrierError invalid_argument */
export function checkDisconnect({ onDisconnect, maxDisconnect }: Policy): void {
  if (maxDisconnect === undefined || onDisconnect === OnDisconnect.KEEP) return;
  const field = 'module.max_disconnect';
  throw new HarrierError('invalid_argument', `${field} goes with on_disconnect KEEP`, { field });
}

/**
 * How long after the end of its agent's lease an attempt may run on; 0: it is stopped before. Ad-hoc work has no policy.
 * @param isJob it is a job of Slurm
 */
export function maxDisconnectMs(policy: Policy | undefined, isJob = false): number {
  const said = policy?.onDisconnect ?? OnDisconnect.ON_DISCONNECT_UNSPECIFIED;
  if (isJob && said === OnDisconnect.ON_DISCONNECT_UNSPECIFIED) return DEFAULT_JOB_DISCONNECT_MS;
  if (policy?.onDisconnect !== OnDisconnect.KEEP) return 0;
  return policy.maxDisconnect === undefined ? DEFAULT_MAX_DISCONNECT_MS : millisecondsOf(policy.maxDisconnect);
}
