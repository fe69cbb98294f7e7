import { expect, test } from 'vitest';
import { type ContainerSpec, containerOptions } from './container-policy.ts';

const SPEC: ContainerSpec = {
  imageId: 'sha256:1',
  command: [],
  env: { A: '1', HOME: '/data' },
  labels: {},
  limits: { memoryBytes: 64 * 1024 * 1024, cpu: 0.5, processes: 10, tmpBytes: 1000, logBytes: 0 },
  volumes: ['/data', '/tmp'],
  mounts: [],
  profile: 'call',
  stdin: true,
};
const ENGINE = { cpus: 2, appArmor: true };

test('no container has a network, a capability, another user, a device or a way to the disk', () => {
  for (const profile of ['call', 'zygote'] as const) {
    const { HostConfig = {}, ...options } = containerOptions({ ...SPEC, profile }, ENGINE);
    expect(options).toMatchObject({ User: '1000:1000', NetworkDisabled: true, Tty: false });
    expect(HostConfig).toMatchObject({
      NetworkMode: 'none',
      ReadonlyRootfs: true,
      Privileged: false,
      CapDrop: ['ALL'],
      Memory: 64 * 1024 * 1024,
      MemorySwap: 64 * 1024 * 1024,
      NanoCpus: 500_000_000,
      PidsLimit: 10,
      Tmpfs: {
        '/tmp': 'exec,rw,nosuid,nodev,mode=1777,size=1000,nr_inodes=1024',
        '/dev/shm': 'noexec,rw,nosuid,nodev,mode=1777,size=1000,nr_inodes=1024',
      },
      Mounts: [{ Type: 'tmpfs', Target: '/data', TmpfsOptions: { SizeBytes: 1000 } }],
    });
    expect(HostConfig.CapAdd ?? HostConfig.Binds ?? HostConfig.Devices ?? HostConfig.PortBindings).toBeUndefined();
    expect(HostConfig.SecurityOpt).toContain('no-new-privileges');
  }
});

test('only a container that makes namespaces of its own may mount, and only inside them', () => {
  const denied = (profile: ContainerSpec['profile']) => {
    const options = containerOptions({ ...SPEC, profile }, ENGINE).HostConfig?.SecurityOpt ?? [];
    const text = options.find((option: string) => option.startsWith('seccomp='))?.slice('seccomp='.length) ?? '';
    const rules: { names: string[]; action: string; args?: unknown }[] = JSON.parse(text).syscalls;
    return rules.flatMap(({ names, args }) => (args === undefined ? names : []));
  };
  expect(denied('call')).toEqual(
    expect.arrayContaining(['mount', 'unshare', 'setns', 'bpf', 'ptrace', 'io_uring_setup']),
  );
  expect(denied('zygote')).toEqual(expect.arrayContaining(['bpf', 'ptrace', 'io_uring_setup', 'keyctl', 'chroot']));
  expect(denied('zygote')).not.toContain('mount');
});

test('more processors than there are is no limit, which the engine would refuse', () => {
  const cpus = (cpu: number) =>
    containerOptions({ ...SPEC, limits: { ...SPEC.limits, cpu } }, ENGINE).HostConfig?.NanoCpus;
  expect([cpus(0), cpus(0.000_000_000_1), cpus(1.5), cpus(2), cpus(64)]).toEqual([
    undefined,
    1,
    1_500_000_000,
    undefined,
    undefined,
  ]);
});

test('the variables of the call stand above the defaults', () => {
  expect(containerOptions(SPEC, ENGINE).Env).toEqual([
    'HOME=/data',
    'TMPDIR=/tmp',
    'A=1',
    'NVIDIA_VISIBLE_DEVICES=void',
  ]);
});

test('a container without cards gets none, whatever its caller says', () => {
  const options = containerOptions({ ...SPEC, env: { NVIDIA_VISIBLE_DEVICES: 'all' } }, { ...ENGINE, gpus: 'nvidia' });
  expect(options.Env).toContain('NVIDIA_VISIBLE_DEVICES=void');
  expect(options.Env).not.toContain('NVIDIA_VISIBLE_DEVICES=all');
  expect(options.HostConfig?.DeviceRequests).toBeUndefined();
});

test.each([
  ['nvidia', { Driver: 'nvidia', DeviceIDs: ['GPU-a', 'MIG-b'], Capabilities: [['gpu', 'compute', 'utility']] }],
  ['cdi', { Driver: 'cdi', DeviceIDs: ['nvidia.com/gpu=GPU-a', 'nvidia.com/gpu=MIG-b'] }],
] as const)('a container gets its cards by %s, by their UUIDs', (gpus, request) => {
  const options = containerOptions({ ...SPEC, gpuUuids: ['GPU-a', 'MIG-b'] }, { ...ENGINE, gpus });
  expect(options.HostConfig?.DeviceRequests).toEqual([request]);
  expect(options.Env).toContain('NVIDIA_VISIBLE_DEVICES=GPU-a,MIG-b');
  expect(options.Env).toContain('CUDA_VISIBLE_DEVICES=GPU-a,MIG-b');
});
