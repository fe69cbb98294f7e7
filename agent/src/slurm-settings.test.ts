import { SettingsReader } from '@harrier/shared';
import { expect, test } from 'vitest';
import { readSlurmSettings } from './slurm-settings.ts';

function read(variables: Record<string, string>) {
  const settings = new SettingsReader(variables);
  return { settings: readSlurmSettings(settings), problems: settings.problems };
}

test('without a directory nothing is submitted', () => {
  const { settings, problems } = read({});
  expect(settings).toMatchObject({ directory: undefined, partition: '', maxJobs: 1000, python: 'python3' });
  expect(problems).toEqual([]);
});

test('what is set counts', () => {
  const { settings } = read({
    HARRIER_AGENT_SLURM_DIR: '/shared/harrier/',
    HARRIER_AGENT_SLURM_PARTITION: 'batch',
    HARRIER_AGENT_SLURM_MAX_JOBS: '5',
    HARRIER_AGENT_SLURM_PYTHON: '/opt/python3.12/bin/python3',
    SLURM_CONF: '/etc/cluster.conf',
  });
  expect(settings).toEqual({
    directory: '/shared/harrier',
    partition: 'batch',
    maxJobs: 5,
    python: '/opt/python3.12/bin/python3',
    configuration: '/etc/cluster.conf',
  });
});

test.each([
  [{ HARRIER_AGENT_SLURM_DIR: 'relative' }, /^HARRIER_AGENT_SLURM_DIR must be an absolute path .*, not "relative"$/],
  [{ HARRIER_AGENT_SLURM_DIR: '/a %j' }, /^HARRIER_AGENT_SLURM_DIR .* not "\/a %j"$/],
  [
    { HARRIER_AGENT_SLURM_PARTITION: 'a b' },
    /^HARRIER_AGENT_SLURM_PARTITION must be the name of a partition, not "a b"$/,
  ],
  [{ HARRIER_AGENT_SLURM_MAX_JOBS: '0' }, /^HARRIER_AGENT_SLURM_MAX_JOBS /],
])('%o is told', (variables, problem) => {
  expect(read(variables as never).problems).toEqual([expect.stringMatching(problem)]);
});
