import { expect, test } from 'vitest';
import { failureKind } from './slurm-failure.ts';

/** In the words of Slurm 22.05. */
test.each([
  ['sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)', 'away'],
  ['slurm_load_jobs error: Unable to contact slurm controller (connect failure)', 'away'],
  ['sbatch: error: If munged is up, restart with --num-threads=10; sbatch: error: Munge encode failed', 'away'],
  [
    'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory',
    'away',
  ],
  ['sbatch: error: Batch job submission failed: Protocol authentication error', 'away'],
  ['there is no command "sbatch" on the agent\'s PATH', 'away'],
  ['sbatch: error: Batch job submission failed: Socket timed out on send/recv operation', 'unknown'],
  ['sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received', 'unknown'],
  ['sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying', 'later'],
  ['sbatch: error: Batch job submission failed: Resource temporarily unavailable', 'later'],
  ['sbatch: error: Batch job submission failed: I/O error writing script/environment to file', 'later'],
  ['sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)', 'later'],
  ['sbatch: error: invalid partition specified: nope; Invalid partition name specified', 'refused'],
  ['sbatch: error: Invalid generic resource (gres) specification', 'refused'],
  ['sbatch: error: Batch job submission failed: Requested node configuration is not available', 'refused'],
  ['sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified', 'refused'],
  [
    'sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)',
    'refused',
  ],
] as const)('%s: %s', (message, kind) => {
  expect(failureKind({ kind: 'failed', message })).toBe(kind);
});

/** One sentence for all limits of the accounting: which one it was is said before it, or not at all. */
test.each([
  ['AssocMaxSubmitJobLimit', 'later'],
  ['AssocGrpSubmitJobsLimit', 'later'],
  ['QOSMaxSubmitJobPerUserLimit', 'later'],
  ['MaxSubmitJobsPerAccount', 'later'],
  ['QOSMaxJobsPerUserLimit', 'later'],
  ['AssocMaxJobsLimit', 'later'],
  ['AssocMaxCpuPerJobLimit', 'refused'],
  ['AssocMaxWallDurationPerJobLimit', 'refused'],
  ['QOSMaxGRESPerJob', 'refused'],
  ['QOSMinGRES', 'refused'],
  ['AssocGrpGRES', 'refused'],
  [undefined, 'refused'],
] as const)('a job that violates the policy of the accounting by %s: %s', (reason, kind) => {
  const sentence =
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
  const message = `sbatch: error: ${reason === undefined ? '' : `${reason}; `}${sentence}`;
  expect(failureKind({ kind: 'failed', message })).toBe(kind);
});

/** The request may have come through before the connection broke. */
test.each([
  'Communication connection failure',
  'Communication shutdown failure',
  'Message send failure',
  'Message receive failure',
  'Unexpected missing socket error',
  'Unable to contact slurm controller (send failure)',
  'Unable to contact slurm controller (receive failure)',
  'Insane message length',
  'Received zero length message',
  'Failed to send entire message',
  'Header lengths are longer than data received',
  'Connection reset by peer',
  'Connection timed out',
  'Software caused connection abort',
  'Broken pipe',
  'Connection reset by peer; Unable to contact slurm controller (connect failure)',
])('nobody knows what a submission has done that ends with "%s"', (words) => {
  expect(failureKind({ kind: 'failed', message: `sbatch: error: Batch job submission failed: ${words}` })).toBe(
    'unknown',
  );
});

test.each(['Connection refused', 'Network is unreachable', 'No route to host', 'Host is down'])(
  'nothing was done where no connection came about: %s',
  (words) => {
    expect(failureKind({ kind: 'failed', message: `sbatch: error: Batch job submission failed: ${words}` })).toBe(
      'away',
    );
  },
);

test('the name of a partition that does not exist says nothing about the controller', () => {
  const message = 'sbatch: error: invalid partition specified: socket; Invalid partition name specified';
  expect(failureKind({ kind: 'failed', message })).toBe('refused');
});

test('of a command that came to no end nobody knows what it has done', () => {
  expect(failureKind({ kind: 'unanswered', message: 'sbatch: no answer within 60 s' })).toBe('unknown');
});
