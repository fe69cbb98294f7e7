/** What must never be, by the name under which it is counted. */
export const OFFENCES = [
  'lost',
  'accepted twice',
  'log bytes missing',
  'log bytes doubled',
  'orphan processes',
  'orphan containers',
  'two at once',
  'started again',
  'nodes twice',
  'nodes out of order',
  'times lost',
  'times twice',
  'times against policy',
] as const;
export type Offence = (typeof OFFENCES)[number];

export interface Finding {
  offence: Offence;
  /** Executions, bytes, processes: what the offence counts. */
  count: number;
  /** What was seen, with the key of the execution. */
  message: string;
}
