import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  EnvironmentSchema,
  LimitsSchema,
  Limits_Network as Network,
  Environment_Docker_Pull as Pull,
} from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { checkEnvironment, checkNetwork, isLockShared, lockedEnvironment } from './environment-spec.ts';

type Kind = MessageInitShape<typeof EnvironmentSchema>['kind'];

const environment = (kind: Kind) => create(EnvironmentSchema, { kind } as MessageInitShape<typeof EnvironmentSchema>);
const venv = (value: object) => environment({ case: 'venv', value });
const check = (kind: Kind, use: { language?: string; preload?: string[] } = {}) =>
  checkEnvironment(environment(kind), { language: '', preload: [], ...use }, 'module.environment');

describe('checkEnvironment', () => {
  test.each<[string, Kind, { language?: string; preload?: string[] }]>([
    [
      'a venv',
      { case: 'venv', value: { requirements: ['numpy>=2', 'pandas ; python_version < "4"'] } },
      { preload: ['numpy'] },
    ],
    ['a conda environment', { case: 'conda', value: { dependencies: ['python=3.12'], channels: ['conda-forge'] } }, {}],
    ['a conda file', { case: 'conda', value: { file: 'dependencies: [python]' } }, {}],
    ['an image', { case: 'docker', value: { image: 'registry:5000/team/runner:1.2' } }, { language: 'go' }],
    ['Node.js in the sandbox', { case: 'inline', value: {} }, { language: 'nodejs' }],
    ['nothing', undefined, {}],
  ])('takes %s', (_, kind, use) => {
    expect(() => check(kind, use)).not.toThrow();
  });

  test.each<[Kind, { language?: string; preload?: string[] }, string]>([
    [
      { case: 'venv', value: { requirements: ['a', '--index-url http://x'] } },
      {},
      'module.environment.venv.requirements[1]',
    ],
    [{ case: 'venv', value: { requirements: ['a\n-e .'] } }, {}, 'module.environment.venv.requirements[0]'],
    [
      { case: 'venv', value: { requirements: ['a', 'a'.repeat(5_000)] } },
      {},
      'module.environment.venv.requirements[1]',
    ],
    [{ case: 'venv', value: { requirements: Array(200_000).fill('a') } }, {}, 'module.environment.venv.requirements'],
    [{ case: 'venv', value: { pyproject: 'a'.repeat(300_000) } }, {}, 'module.environment.venv.pyproject'],
    [{ case: 'venv', value: { lock: 'a'.repeat(3_000_000) } }, {}, 'module.environment.venv.lock'],
    [{ case: 'venv', value: { indexUrl: `http://${'a'.repeat(5_000)}` } }, {}, 'module.environment.venv.index_url'],
    [{ case: 'conda', value: { file: 'a'.repeat(40_000) } }, {}, 'module.environment.conda.file'],
    [{ case: 'conda', value: { dependencies: ['a'.repeat(5_000)] } }, {}, 'module.environment.conda.dependencies[0]'],
    [{ case: 'venv', value: { indexUrl: 'file:///etc' } }, {}, 'module.environment.venv.index_url'],
    [{ case: 'venv', value: { extraIndexUrls: ['nonsense'] } }, {}, 'module.environment.venv.extra_index_urls[0]'],
    [{ case: 'venv', value: { lock: '\0' } }, {}, 'module.environment.venv.lock'],
    [{ case: 'venv', value: {} }, { language: 'nodejs' }, 'module.language'],
    [{ case: 'inline', value: {} }, { language: 'go' }, 'module.language'],
    [{ case: 'inline', value: {} }, { preload: ['json'] }, 'module.preload'],
    [{ case: 'docker', value: { image: 'i' } }, { language: 'go', preload: ['json'] }, 'module.preload'],
    [{ case: 'docker', value: { image: '--privileged' } }, {}, 'module.environment.docker.image'],
    [{ case: 'docker', value: { image: 'a b' } }, {}, 'module.environment.docker.image'],
    [{ case: 'conda', value: {} }, {}, 'module.environment.conda.dependencies'],
    [{ case: 'conda', value: { file: 'x', channels: ['c'] } }, {}, 'module.environment.conda.file'],
    [{ case: 'conda', value: { dependencies: ['a\nb'] } }, {}, 'module.environment.conda.dependencies[0]'],
  ])('refuses %j with %j', (kind, use, field) => {
    expect(() => check(kind, use)).toThrow(expect.objectContaining({ code: 'invalid_argument', field }));
  });
});

test('hosts go with the network EGRESS', () => {
  const limits = (network: Network) => create(LimitsSchema, { network, egressHosts: ['a.example'] });
  expect(() => checkNetwork(limits(Network.EGRESS), 'limits')).not.toThrow();
  expect(() => checkNetwork(limits(Network.FULL), 'limits')).toThrow(/limits\.egress_hosts: goes with network EGRESS/);
});

describe('a lock', () => {
  test('is filled in where there was none', () => {
    expect(lockedEnvironment(venv({ requirements: ['a'] }), 'a==1').kind.value).toMatchObject({ lock: 'a==1' });
    expect(lockedEnvironment(venv({ lock: 'a==2' }), 'a==1').kind.value).toMatchObject({ lock: 'a==2' });
  });

  test('of an image holds for all agents when a registry has it', () => {
    const docker = (pull: Pull) => environment({ case: 'docker', value: { image: 'team/runner:1', pull } });
    const digest = `team/runner@sha256:${'0'.repeat(64)}`;
    expect(isLockShared(docker(Pull.IF_MISSING), digest)).toBe(true);
    expect(isLockShared(docker(Pull.IF_MISSING), `sha256:${'0'.repeat(64)}`)).toBe(false);
    expect(isLockShared(docker(Pull.ALWAYS), digest)).toBe(false);
    expect(lockedEnvironment(docker(Pull.IF_MISSING), digest).kind.value).toMatchObject({ image: digest });
  });
});
