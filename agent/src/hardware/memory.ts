import { totalmem } from 'node:os';
import type { Probe } from './probe.ts';

export const memoryProbe: Probe = {
  everyMs: undefined,
  read: () => Promise.resolve({ memoryBytes: BigInt(totalmem()) }),
};
