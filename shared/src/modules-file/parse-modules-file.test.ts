import { describe, expect, it } from 'vitest';
import { ExecutionError_Code as Code } from '../gen/harrier/v1/error_pb.ts';
import {
  Limits_Network as Network,
  Module_OnDisconnect as OnDisconnect,
  Environment_Docker_Pull as Pull,
} from '../gen/harrier/v1/module_pb.ts';
import { formatProblem } from '../yaml-file/problem.ts';
import { parseModulesFile } from './parse-modules-file.ts';

const SEED = `modules:
  - name: hello-world
    env: inline
    code: |
      def handler(input):
          return {"message": f"Hello, {input.get('name', 'World')}!"}
    version: "0.1.0"
    tags:
      - example
      - greeting
`;

function problemsOf(text: string): string[] {
  return parseModulesFile(text).problems.map((problem) => formatProblem('m.yaml', problem));
}

describe('parseModulesFile', () => {
  it('reads the short form', () => {
    const { modules, problems } = parseModulesFile(SEED);
    expect(problems).toEqual([]);
    expect(modules[0]?.module).toMatchObject({
      name: 'hello-world',
      version: '0.1.0',
      tags: ['example', 'greeting'],
      environment: { kind: { case: 'inline' } },
      code: expect.stringContaining('def handler(input):\n    return'),
    });
  });

  it('reads every field', () => {
    const { modules, problems } = parseModulesFile(`modules:
  - name: all
    version: "1.0.0"
    env: { inline: {} }
    path: ./all.py
    description: Everything
    language: python
    handler: main
    timeout: 90s
    on_disconnect: keep
    max_disconnect: 2h
    task_class: cpu_long
    reuse: true
    agent_selector: "zone=eu"
    input_schema: { type: object, properties: { n: { type: integer } } }
    output_schema: { type: object }
    limits: { memory_bytes: 256MiB, stdout_bytes: 1024, gpus: 2, gpu: { model: H100, mig_profile: 1g.10gb } }
    slurm: { partition: long, gres: "gpu:2", time: 48h, cpus_per_task: 4 }
    concurrency: { key: shared, max_active: 3 }
    retry:
      max_attempts: 4
      initial_backoff: 200ms
      max_backoff: 1m
      backoff_multiplier: 1.5
      jitter_ratio: 0
      codes: [HANDLER_ERROR, TIMEOUT]
`);
    expect(problems).toEqual([]);
    expect(modules[0]).toMatchObject({
      codePath: './all.py',
      module: {
        description: 'Everything',
        handler: 'main',
        timeout: { seconds: 90n, nanos: 0 },
        onDisconnect: OnDisconnect.KEEP,
        maxDisconnect: { seconds: 7200n },
        taskClass: 'cpu_long',
        reuse: true,
        agentSelector: 'zone=eu',
        inputSchema: { type: 'object', properties: { n: { type: 'integer' } } },
        limits: {
          memoryBytes: 268_435_456n,
          stdoutBytes: 1024n,
          gpus: 2,
          gpu: { model: 'H100', migProfile: '1g.10gb' },
        },
        slurm: { partition: 'long', gres: 'gpu:2', time: { seconds: 172_800n }, cpusPerTask: 4 },
        concurrency: { key: 'shared', maxActive: 3 },
        retryPolicy: {
          maxAttempts: 4,
          initialBackoff: { seconds: 0n, nanos: 200_000_000 },
          maxBackoff: { seconds: 60n },
          backoffMultiplier: 1.5,
          jitterRatio: 0,
          codes: [Code.HANDLER_ERROR, Code.TIMEOUT],
        },
      },
    });
  });

  it('reports every problem with its line and column', () => {
    const problems = problemsOf(`modules:
  - name: a
    version: 1.0
    env: vent
    code: x
  - version: "1.0.0"
    code: x
    path: y
    colour: red
  - just text
  - name: b
    version: "1.0.0"
    code: x
    timeout: soon
    tags: [1]
    limits: { memory_bytes: lots, cpus: 2 }
    retry: { max_attempts: 1.5, codes: [OOPS] }
    on_disconnect: hold
`);
    expect(problems.map((problem) => problem.split('; there are')[0])).toEqual([
      'm.yaml:3:14: modules[0].version: must be a text; put it in quotes: "1.0"',
      'm.yaml:4:10: modules[0].env: there is no environment "vent"',
      'm.yaml:6:5: modules[1].name: is missing',
      'm.yaml:7:11: modules[1].code: exactly one of `code` and `path` says what runs',
      'm.yaml:9:5: modules[1]: there is no field "colour"',
      'm.yaml:10:5: modules[2]: must be a map with name, version and code or path',
      'm.yaml:14:14: modules[3].timeout: must be seconds, or a duration like 500ms, 90s or 5m, not "soon"',
      'm.yaml:15:12: modules[3].tags[0]: must be a text; put it in quotes',
      'm.yaml:16:29: modules[3].limits.memory_bytes: must be bytes like 268435456 or 256MiB, not "lots"',
      'm.yaml:16:35: modules[3].limits: there is no field "cpus"',
      'm.yaml:17:28: modules[3].retry.max_attempts: must be a whole number, not 1.5',
      'm.yaml:17:40: modules[3].retry.codes: there is no error code "OOPS"',
      'm.yaml:18:20: modules[3].on_disconnect: must be one of stop, keep, not "hold"',
    ]);
  });

  it('reports the same version of a module twice', () => {
    expect(problemsOf(`${SEED}${SEED.slice(SEED.indexOf('  - name'))}`)).toEqual([
      'm.yaml:16:14: modules[1].version: hello-world 0.1.0 is already in line 7',
    ]);
  });

  it.each([
    ['modules: [', /^m\.yaml:1:11: this is not YAML: /],
    ['', /^m\.yaml:1:1: a modules file is a map with the key `modules`$/],
    ['- name: a', /^m\.yaml:1:1: a modules file is a map/],
    ['modules: 7', /^m\.yaml:1:10: modules: must be a list$/],
    ['module: []', /^m\.yaml:1:1: there is no field "module"; there are modules$/],
    ['modules: []\nmodules: []', /^m\.yaml:2:1: this is not YAML: Map keys must be unique/],
    ['modules:\n  - {name: a, version: "1.0.0", code: x, timeout: 1s, timeout: 2s}', /Map keys must be unique/],
    ['modules: [*nobody]', /^m\.yaml:1:11: there is no anchor "nobody" before it$/],
  ])('refuses %j', (text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringMatching(problem)]);
  });

  it('takes a list without modules', () => {
    expect(parseModulesFile('modules:\n')).toEqual({ modules: [], problems: [] });
  });

  it('reads what a module runs in', () => {
    const { modules, problems } = parseModulesFile(`modules:
  - { name: a, version: "1.0.0", code: x, env: venv, preload: [numpy] }
  - name: b
    version: "1.0.0"
    code: x
    env:
      venv: { requirements: [numpy>=2], python: ">=3.10", index_url: "https://index.example/simple" }
    limits: { cpu: 0.5, network: egress, egress_hosts: ["*.example.org:443"], processes: 32 }
  - { name: c, version: "1.0.0", code: x, env: { conda: { dependencies: [python=3.12], channels: [conda-forge] } } }
  - { name: d, version: "1.0.0", code: x, env: { docker: { image: "python:3.13", pull: if-missing } } }
`);
    expect(problems).toEqual([]);
    expect(modules.map(({ module }) => module)).toMatchObject([
      { environment: { kind: { case: 'venv', value: { requirements: [] } } }, preload: ['numpy'] },
      {
        environment: {
          kind: {
            case: 'venv',
            value: { requirements: ['numpy>=2'], python: '>=3.10', indexUrl: 'https://index.example/simple' },
          },
        },
        limits: { cpu: 0.5, network: Network.EGRESS, egressHosts: ['*.example.org:443'], processes: 32 },
      },
      { environment: { kind: { case: 'conda', value: { dependencies: ['python=3.12'], channels: ['conda-forge'] } } } },
      { environment: { kind: { case: 'docker', value: { image: 'python:3.13', pull: Pull.IF_MISSING } } } },
    ]);
  });

  it.each([
    ['env: { venv: { requirement: [a] } }', /env\.venv: there is no field "requirement"/],
    ['env: { venv: [a] }', /env\.venv: must be a map$/],
    ['env: { inline: { a: 1 } }', /env\.inline: there is no field "a"/],
    [
      'env: { docker: { image: i, pull: sometimes } }',
      /pull: must be one of if-missing, always, never, not "sometimes"/,
    ],
    ['limits: { network: wide }', /limits\.network: must be one of none, index, egress, full, not "wide"/],
  ])('refuses %s', (entry, problem) => {
    expect(problemsOf(`modules:\n  - { name: a, version: "1.0.0", code: x, ${entry} }`)).toEqual([
      expect.stringMatching(problem),
    ]);
  });

  it('follows anchors', () => {
    const { modules, problems } = parseModulesFile(`modules:
  - { name: a, version: "1.0.0", code: x, retry: &retry { max_attempts: 2 } }
  - { name: b, version: "1.0.0", code: x, retry: *retry }
`);
    expect(problems).toEqual([]);
    expect(modules[1]?.module.retryPolicy?.maxAttempts).toBe(2);
  });

  it('tells where a field of the schema stands', () => {
    const [entry] = parseModulesFile(`modules:
  - name: a
    version: "1.0.0"
    code: x
    retry:
      max_attempts: 1000
`).modules;
    expect(entry?.positionOf('retry_policy.max_attempts')).toEqual({ line: 6, column: 21 });
    expect(entry?.positionOf('version')).toEqual({ line: 3, column: 14 });
    expect(entry?.positionOf('environment')).toEqual({ line: 2, column: 5 });
  });
});
