import type { Direction, FrameFault } from '../world/link-proxy.ts';
import { LEASE_MS } from '../world/world.ts';
import { anAgent, type Fault, type FaultContext, HARMLESS, lasting } from './fault.ts';

const BOTH: readonly Direction[] = ['to agent', 'to replica'];
/** Longer than from one heartbeat to the next: also an agent that has little to do has frames to treat. */
const LASTING_MS = LEASE_MS / 3 + 2_000;
/** A frame that nothing follows comes in its place after all. */
const WITHHELD_MS = 200;

/** Treats the frames of one agent's link for a while. @param make a treatment for each direction, which says when it has treated one */
async function treat(context: FaultContext, make: (onTreated: () => void) => FrameFault): Promise<string[]> {
  const host = anAgent(context);
  let treated = 0;
  for (const direction of BOTH) host.treatFrames(direction, () => make(() => treated++));
  await lasting(LASTING_MS);
  for (const direction of BOTH) host.treatFrames(direction, undefined);
  if (treated === 0) context.miss();
  return [host.selector];
}

/** Frames come twice. */
export const framesDuplicated: Fault = {
  ...HARMLESS,
  run: (context) =>
    treat(context, (onTreated) => (frame, forward) => {
      forward(frame);
      if (!context.random.chance(0.5)) return;
      forward(frame);
      onTreated();
    }),
};

/** Frames come late, in their order. */
export const framesDelayed: Fault = {
  ...HARMLESS,
  run: (context) =>
    treat(context, (onTreated) => {
      let before = Promise.resolve();
      return (frame, forward) => {
        onTreated();
        before = before.then(() => lasting(context.random.integer(0, 200))).then(() => forward(frame));
      };
    }),
};

/** Now and then a frame comes before the one that was sent first. */
export const framesReordered: Fault = {
  ...HARMLESS,
  run: (context) =>
    treat(context, (onTreated) => {
      let release: (() => void) | undefined;
      return (frame, forward) => {
        if (release === undefined && context.random.chance(0.4)) {
          const timer = setTimeout(() => release?.(), WITHHELD_MS);
          release = () => {
            clearTimeout(timer);
            release = undefined;
            forward(frame);
          };
          return;
        }
        forward(frame);
        if (release !== undefined) onTreated();
        release?.();
      };
    }),
};

/** Connections end with RST in the middle of a frame. */
export const connectionReset: Fault = {
  ...HARMLESS,
  run: (context) =>
    treat(context, (onTreated) => (frame, forward, passage) => {
      if (!context.random.chance(0.2)) {
        forward(frame);
        return;
      }
      onTreated();
      forward(frame.subarray(0, context.random.integer(0, frame.length - 1)));
      passage.reset();
    }),
};
