import type { MessageInitShape } from '@bufbuild/protobuf';
import type { HardwareSchema } from '@harrier/shared/gen/agent';

export type HardwareFacts = Exclude<MessageInitShape<typeof HardwareSchema>, { $typeName: string }>;

/** Finds out one thing about the host. */
export interface Probe {
  /** How often it is asked again; undefined asks once, at the start. */
  everyMs: number | undefined;
  /** Never rejects for what a host may lack: that is an empty answer. Ends by itself, in seconds. */
  read(): Promise<HardwareFacts>;
}
