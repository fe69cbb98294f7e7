import { fromBinary } from '@bufbuild/protobuf';
import { LinkFrameSchema } from '@harrier/shared/gen/link';
import { framePayload } from '../world/websocket-frames.ts';
import { anAgent, type Fault, HARMLESS, lasting } from './fault.ts';

const LASTING_MS = 4_000;
/** Of the acknowledgements: the others let the agent get on with its work. */
const LOST_RATIO = 0.5;

/** A result is committed, and the link breaks before the agent is told. */
export const acknowledgementLost: Fault = {
  ...HARMLESS,
  async run(context) {
    const host = anAgent(context);
    let lost = 0;
    host.treatFrames('to agent', () => (frame, forward, passage) => {
      if (acknowledgesResult(frame) && context.random.chance(LOST_RATIO)) {
        passage.reset();
        lost++;
      } else forward(frame);
    });
    await lasting(LASTING_MS);
    host.treatFrames('to agent', undefined);
    if (lost === 0) context.miss();
    return [host.selector];
  },
};

function acknowledgesResult(frame: Buffer): boolean {
  const { body } = fromBinary(LinkFrameSchema, framePayload(frame));
  return body.case === 'server' && body.value.messages.some(({ message }) => message.case === 'resultStored');
}
