import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { REPOSITORY } from '../support/workspace.ts';

const FILE = join(REPOSITORY, 'deploy/docker/compose.yaml');

interface Service {
  build?: { context: string; dockerfile: string };
  image: string;
  depends_on?: Record<string, { condition: string }>;
  ports?: string[];
  volumes?: string[];
  security_opt?: string[];
  cap_drop?: string[];
  read_only?: boolean;
}

const { services, volumes }: { services: Record<string, Service>; volumes: Record<string, null> } = parse(
  readFileSync(FILE, 'utf8'),
);
const all = Object.entries(services);

describe('the Compose file', () => {
  test.each(all)('finds what %s names', (_, service) => {
    if (service.build !== undefined) {
      const context = resolve(dirname(FILE), service.build.context);
      expect(context).toBe(REPOSITORY);
      expect(existsSync(join(context, service.build.dockerfile)), service.build.dockerfile).toBe(true);
    }
    for (const volume of service.volumes ?? []) {
      const [source = ''] = volume.split(':');
      if (source.startsWith('.')) expect(statSync(resolve(dirname(FILE), source)).isDirectory(), volume).toBe(true);
      else expect(Object.keys(volumes)).toContain(source);
    }
    for (const option of service.security_opt ?? []) {
      const file = /^seccomp=(.+\.json)$/.exec(option)?.[1];
      if (file !== undefined) JSON.parse(readFileSync(resolve(dirname(FILE), file), 'utf8'));
    }
    for (const name of Object.keys(service.depends_on ?? {})) expect(Object.keys(services)).toContain(name);
  });

  test('publishes nothing beyond the loopback interface', () => {
    const ports = all.flatMap(([, service]) => service.ports ?? []);
    expect(ports.length).toBeGreaterThan(0);
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  test('gives no privilege to what is built here', () => {
    const own = all.filter(([, service]) => service.build !== undefined);
    expect(own.map(([name]) => name)).toEqual(['control-plane', 'join', 'agent']);
    for (const [, service] of own) {
      expect([service.read_only, service.cap_drop]).toEqual([true, ['ALL']]);
      expect(service.security_opt).toContain('no-new-privileges');
    }
  });
});
