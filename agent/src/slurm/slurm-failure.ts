import type { ToolAnswer } from './slurm-tools.ts';

/**
 * Why a command of Slurm has failed:
 * - `away`: the controller does not answer; nothing was done;
 * - `unknown`: it may have done what was asked, although its answer did not come;
 * - `later`: it cannot now; the same may be asked again;
 * - `refused`: it answers, and will not: the request or the rights are wrong.
 */
export type FailureKind = 'away' | 'unknown' | 'later' | 'refused';

/**
 * In the words of slurm_strerror(3) and strerror(3), the first that fits. A connection that broke leaves open what was done,
 * also when that to the next controller did not come about.
 */
const WORDS: readonly (readonly [RegExp, FailureKind])[] = [
  // It repeats the caller's word, which may look like any of those below.
  [/invalid partition specified: /i, 'refused'],
  [/controller \((send|receive|shutdown) failure\)/i, 'unknown'],
  [/timed out|Zero Bytes were transmitted|Message (send|receive) failure|Unexpected message received/i, 'unknown'],
  [/zero length message|message length|send entire message|Header lengths/i, 'unknown'],
  // Not the path "munge.socket.2".
  [/(?<!\.)\bsocket\b|\bconnection (failure|reset|abort)|Communication|Broken pipe/i, 'unknown'],
  [/Unable to contact slurm controller|connect failure|Connection refused|controller.*not responding/i, 'away'],
  [/Unable to establish controller machine|Could not establish a configuration source|No route to host/i, 'away'],
  [/Network is unreachable|Host is down/i, 'away'],
  [
    /in standby mode|munge|authentication (error|failure|agent)|Invalid authentication credential|credential invalid/i,
    'away',
  ],
  [/there is no command|error while loading shared libraries/i, 'away'],
  [
    /temporarily unable|Resource temporarily unavailable|try again|currently disabled|is being (reconfigured|updated)/i,
    'later',
  ],
  // The reason counts: the sentence behind it ("job submit limit, user's size and/or time limits") is the same for all limits of
  // the accounting, most of which no waiting changes. Numbers of jobs get smaller by themselves.
  [/(Max|Grp)(Submit)?Jobs?(Limit|Per)|too many jobs|MaxJobCount|job queue full/i, 'later'],
  [/Required (node|partition) not available|down or drained|partition.*(inactive|is down)/i, 'later'],
  [/I\/O error writing script/i, 'later'],
];

export function failureKind(answer: Exclude<ToolAnswer, { kind: 'done' }>): FailureKind {
  if (answer.kind === 'unanswered') return 'unknown';
  return WORDS.find(([words]) => words.test(answer.message))?.[1] ?? 'refused';
}
