import { expect, test } from 'vitest';
import { DEFAULTS } from './read-service.ts';
import { containerName, serviceOptions } from './service-container.ts';
import type { ServiceDefinition } from './service-definition.ts';

function optionsOf(fields: Partial<ServiceDefinition>) {
  return serviceOptions({ ...DEFAULTS, name: 'cache', image: 'cache:1', ...fields }, 'sha256:1', '/var/lib/agent');
}

test('a service is the image as it is, and the engine never starts it again by itself', () => {
  expect(optionsOf({})).toMatchObject({
    Image: 'sha256:1',
    Env: [],
    Labels: { 'harrier.agent': '/var/lib/agent', 'harrier.role': 'service', 'harrier.service': 'cache' },
    HostConfig: { RestartPolicy: { Name: 'no' }, SecurityOpt: ['no-new-privileges'], Mounts: [], PortBindings: {} },
  });
  const { Cmd, Entrypoint, User, WorkingDir, Healthcheck, HostConfig } = optionsOf({});
  expect([Cmd, Entrypoint, User, WorkingDir, Healthcheck]).toEqual(Array(5).fill(undefined));
  expect([HostConfig?.Memory, HostConfig?.NanoCpus, HostConfig?.DeviceRequests]).toEqual(Array(3).fill(undefined));
});

test('it has what its definition says', () => {
  const options = optionsOf({
    command: ['serve'],
    env: { A: 'b=c' },
    user: '7',
    volumes: [{ kind: 'bind', source: '/srv', target: '/data', readOnly: true }],
    ports: [
      { hostIp: '127.0.0.1', hostPort: 81, containerPort: 80, protocol: 'tcp' },
      { hostIp: '::1', hostPort: 81, containerPort: 80, protocol: 'tcp' },
    ],
    networks: ['back', 'front'],
    limits: { cpu: 0.5, memoryBytes: 1024, processes: 9, logBytes: 5 },
    gpus: ['GPU-1'],
  });
  expect(options).toMatchObject({
    Cmd: ['serve'],
    Env: ['A=b=c'],
    User: '7',
    ExposedPorts: { '80/tcp': {} },
    NetworkingConfig: { EndpointsConfig: { back: { Aliases: ['cache'] } } },
    HostConfig: {
      NetworkMode: 'back',
      Mounts: [{ Type: 'bind', Source: '/srv', Target: '/data', ReadOnly: true }],
      PortBindings: {
        '80/tcp': [
          { HostIp: '127.0.0.1', HostPort: '81' },
          { HostIp: '::1', HostPort: '81' },
        ],
      },
      Memory: 1024,
      MemorySwap: 1024,
      NanoCpus: 5e8,
      PidsLimit: 9,
      DeviceRequests: [{ Capabilities: [['gpu']], DeviceIDs: ['GPU-1'] }],
    },
  });
  expect(optionsOf({ gpus: ['all'] }).HostConfig?.DeviceRequests).toEqual([{ Capabilities: [['gpu']], Count: -1 }]);
});

test('checks by a program are those of the engine, those over HTTP are not', () => {
  const times = { intervalMs: 1_500, timeoutMs: 1_000, retries: 2, startPeriodMs: 3_000, onFailure: 'report' } as const;
  expect(optionsOf({ health: { probe: { kind: 'command', argv: ['ping'] }, ...times } }).Healthcheck).toEqual({
    Test: ['CMD', 'ping'],
    Interval: 1.5e9,
    Timeout: 1e9,
    StartPeriod: 3e9,
    Retries: 2,
  });
  expect(optionsOf({ health: { probe: { kind: 'http', url: 'http://127.0.0.1' }, ...times } }).Healthcheck).toEqual({
    Test: ['NONE'],
  });
});

test('agents that share an engine do not want the same name', () => {
  expect(containerName('cache', '/a')).toMatch(/^harrier-cache-[0-9a-f]{8}$/);
  expect(containerName('cache', '/a')).not.toBe(containerName('cache', '/b'));
});
