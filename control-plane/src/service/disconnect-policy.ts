import { HarrierError } from '@harrier/shared';
import { type Module, Module_OnDisconnect as OnDisconnect } from '@harrier/shared/gen/module';
import { millisecondsOf } from './duration.ts';

/** Where a module that runs on without the control plane does not say for how long. */
const DEFAULT_MAX_DISCONNECT_MS = 3_600_000;

type Policy = Pick<Module, 'onDisconnect' | 'maxDisconnect'>;

/** @throws HarrierError invalid_argument */
export function checkDisconnect({ onDisconnect, maxDisconnect }: Policy): void {
  if (maxDisconnect === undefined || onDisconnect === OnDisconnect.KEEP) return;
  const field = 'module.max_disconnect';
  throw new HarrierError('invalid_argument', `${field} goes with on_disconnect KEEP`, { field });
}

/** How long after the end of its agent's lease an attempt may run on; 0: it is stopped before. Ad-hoc work has no policy. */
export function maxDisconnectMs(policy: Policy | undefined): number {
  if (policy?.onDisconnect !== OnDisconnect.KEEP) return 0;
  return policy.maxDisconnect === undefined ? DEFAULT_MAX_DISCONNECT_MS : millisecondsOf(policy.maxDisconnect);
}
