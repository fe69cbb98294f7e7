import { describe, expect, it } from 'vitest';
import { formatProblem } from '../yaml-file/problem.ts';
import { parseTaskClasses } from './load-task-classes.ts';

function problemsOf(text: string): string[] {
  return parseTaskClasses(text).problems.map((problem) => formatProblem('c.yaml', problem));
}

describe('parseTaskClasses', () => {
  it('knows the classes that every control plane has', () => {
    const { classes, problems } = parseTaskClasses('task_classes: []\n');
    expect(problems).toEqual([]);
    expect([...classes.values()].map(({ name, timeoutMs }) => [name, timeoutMs])).toEqual([
      ['cpu_short', 60_000],
      ['cpu_long', 900_000],
      ['gpu', 600_000],
      ['gpu_slurm', undefined],
    ]);
    expect(classes.get('gpu')?.limits.gpus).toBe(1);
    expect(classes.get('gpu_slurm')?.slurm).toBeDefined();
  });

  it('reads every field', () => {
    const { classes, problems } = parseTaskClasses(`task_classes:
  - name: training
    timeout: 2h
    max_timeout: 48h
    limits: { gpus: 2, gpu: { model: H100, min_memory_bytes: 40GiB, min_driver_version: "550" }, memory_bytes: 64GiB }
    max_limits: { gpus: 8, cpu: 64 }
    reserve: { cpu: 8, memory_bytes: 32GiB }
    slurm: { partition: long, qos: high, time: 48h }
    environments: [conda, docker]
    isolation: sandbox
    agent_selector: "pool=gpu, cores > 8"
    priority: 10
    weight: 2.5
`);
    expect(problems).toEqual([]);
    expect(classes.get('training')).toMatchObject({
      timeoutMs: 7_200_000,
      maxTimeoutMs: 172_800_000,
      limits: { gpus: 2, gpu: { model: 'H100', minMemoryBytes: 42_949_672_960n }, memoryBytes: 68_719_476_736n },
      maxLimits: { gpus: 8, cpu: 64 },
      reserve: { cpu: 8, memoryBytes: 34_359_738_368 },
      slurm: { partition: 'long', qos: 'high', time: { seconds: 172_800n } },
      environments: ['conda', 'docker'],
      sandboxOnly: true,
      agentSelector: 'pool=gpu, cores > 8',
      priority: 10,
      weight: 2.5,
    });
  });

  it('changes of a class that is there anyway only what is named', () => {
    const { classes } = parseTaskClasses('task_classes:\n  - { name: gpu, max_timeout: 1h }\n');
    expect(classes.get('gpu')).toMatchObject({ timeoutMs: 600_000, maxTimeoutMs: 3_600_000, limits: { gpus: 1 } });
  });

  it('nor anything else within its limits', () => {
    const text = `task_classes:
  - { name: gpu, limits: { memory_bytes: 16GiB, gpu: { model: A100 } } }
`;
    const { classes, problems } = parseTaskClasses(text);
    expect(problems).toEqual([]);
    expect(classes.get('gpu')?.limits).toMatchObject({
      gpus: 1,
      memoryBytes: 17_179_869_184n,
      gpu: { model: 'A100', migProfile: '' },
    });
    expect(parseTaskClasses('task_classes: []').classes.get('gpu')?.limits).toMatchObject({ gpus: 1, memoryBytes: 0n });
    const none = parseTaskClasses('task_classes:\n  - { name: gpu, limits: { gpus: 0 } }\n');
    expect(none.classes.get('gpu')?.limits.gpus).toBe(0);
  });

  it.each([
    ['- 1\n', ['c.yaml:1:1: a file of task classes is a map with the key `task_classes`']],
    ['task_classes: 1\n', ['c.yaml:1:15: task_classes: must be a list of maps']],
    ['task_classes:\n  - { timeout: 1s }\n', ['c.yaml:2:5: task_classes[0].name: is missing']],
    [
      'task_classes:\n  - { name: a, limit: {} }\n',
      [expect.stringMatching(/^c\.yaml:2:16: task_classes\[0\]: there is no field "limit"; there are agent_selector/)],
    ],
    [
      'task_classes:\n  - name: a\n    limits: { gpu: { model: 4 } }\n',
      ['c.yaml:3:29: task_classes[0].limits.gpu.model: must be a text; put it in quotes: "4"'],
    ],
    ['task_classes:\n  - name: A\n', [expect.stringContaining('c.yaml:2:11: task_classes[0].name: "A" is no name')]],
    [
      'task_classes:\n  - { name: a }\n  - { name: a }\n',
      ['c.yaml:3:13: task_classes[1].name: a is already in line 2'],
    ],
    [
      'task_classes:\n  - { name: a, timeout: 2h, max_timeout: 1h }\n',
      ['c.yaml:2:25: task_classes[0].timeout: 7200 s is longer than max_timeout, 3600 s'],
    ],
    [
      'task_classes:\n  - { name: a, agent_selector: "a b" }\n',
      [expect.stringMatching(/^c\.yaml:2:32: task_classes\[0\]\.agent_selector: "a b" is not a label requirement/)],
    ],
    [
      'task_classes:\n  - { name: a, limits: { gpus: 4 }, max_limits: { gpus: 2 } }\n',
      ['c.yaml:2:24: task_classes[0].limits: gpus is 4, more than the 2 of max_limits'],
    ],
    [
      'task_classes:\n  - { name: a, max_timeout: 8h, slurm: { time: 48h } }\n',
      [expect.stringMatching(/^c\.yaml:2:40: task_classes\[0\]\.slurm: time: 172800 s is longer than the 28800 s/)],
    ],
    [
      'task_classes:\n  - { name: a, timeout: 25h, max_timeout: 366d }\n',
      [
        expect.stringMatching(/\.timeout: must be more than 0 and at most 24h; jobs of Slurm may have longer/),
        expect.stringMatching(/\.max_timeout: must be more than 0 and at most 8760h$/),
      ],
    ],
    [
      'task_classes:\n  - { name: a, environments: [venv, vmware] }\n',
      [expect.stringContaining('there is no environment "vmware"; there are inline, venv, conda, docker')],
    ],
  ])('tells what is wrong with %j, and where', (text, problems) => {
    expect(problemsOf(text)).toEqual(problems);
  });
});
