import type { AttemptTableOptions } from '../job/attempt-table.ts';

/** An agent without cards. */
export const NO_GPUS: AttemptTableOptions['gpus'] = {
  reserve: () => undefined,
  adopt: () => {},
  giveBack: () => {},
  release: () => {},
};
