import { describe, expect, test } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { parsePartitions, slurmProbe } from './slurm.ts';

// Made up in the documented form of `sinfo -h -o '%P|%a|%l|%D|%G'`.
const PARTITIONS = [
  'debug*|up|30:00|2|(null)',
  'gpu|up|2-00:00:00|4|gpu:h100:8(S:0-1),nvme:1',
  'gpu|up|2-00:00:00|1|gpu:a100:4',
  'old|down|infinite|3|(null)',
  '',
].join('\n');

test('partitions are told once, with all their nodes and resources', () => {
  const none = { gres: [] };
  expect(parsePartitions(PARTITIONS)).toEqual([
    { name: 'debug', isDefault: true, up: true, nodes: 2, ...none, timeLimitSeconds: 1800n },
    {
      name: 'gpu',
      isDefault: false,
      up: true,
      nodes: 5,
      gres: ['gpu:h100:8', 'nvme:1', 'gpu:a100:4'],
      timeLimitSeconds: 172_800n,
    },
    { name: 'old', isDefault: false, up: false, nodes: 3, ...none, timeLimitSeconds: 0n },
  ]);
});

describe('a host', () => {
  function hostWith(sinfo: string) {
    const directory = tempDir();
    standInTool(directory, 'sinfo', `case "$1" in --version) echo 'slurm-wlm 22.05.8';; *) ${sinfo};; esac`);
    standInTool(directory, 'sbatch', 'exit 0');
    standInTool(directory, 'scontrol', "printf 'Configuration data\\nClusterName             = lab\\n'");
    return slurmProbe(`${directory}:/usr/bin:/bin`);
  }

  test('without the commands has no Slurm', async () => {
    expect((await slurmProbe(tempDir()).read()).slurm).toBeUndefined();
  });

  test('with them has a cluster', async () => {
    expect(await hostWith("echo 'debug*|up|infinite|1|(null)'").read()).toMatchObject({
      slurm: { version: '22.05.8', cluster: 'lab', partitions: [{ name: 'debug' }], unavailableReason: '' },
    });
  });

  test('whose controller is down tells that', async () => {
    const probe = hostWith("echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1");
    expect(await probe.read()).toMatchObject({
      slurm: {
        partitions: [],
        unavailableReason: 'the controller cannot be asked: slurm_load_partitions: Unable to contact slurm controller',
      },
    });
  });
});
