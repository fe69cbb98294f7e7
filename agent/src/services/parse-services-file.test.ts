import { formatProblem } from '@harrier/shared/yaml-file/problem';
import { describe, expect, it } from 'vitest';
import { parseServicesFile } from './parse-services-file.ts';

/** `/var/run` is a link to `/run`, as on every host. */
const OPTIONS = {
  environment: 'default',
  base: '/etc/harrier',
  socketPaths: ['/run/docker.sock'],
  realPath: (path: string) => path.replace(/^\/var\/run/, '/run'),
  isGivenGpu: (uuid: string) => uuid === 'all' || uuid === 'GPU-given',
};

function parse(text: string, environment = 'default') {
  const file = parseServicesFile(text, { ...OPTIONS, environment });
  return { ...file, problems: file.problems.map((problem) => formatProblem('s.yaml', problem)) };
}

const problemsOf = (text: string, environment?: string) => parse(text, environment).problems;

describe('parseServicesFile', () => {
  it('reads every field', () => {
    const { services, problems, stopWithAgent } = parse(`stop_with_agent: true
services:
  - name: cache
    image: registry.example.org:5000/cache:8
    pull: always
    command: [cache-server, --save, ""]
    entrypoint: [/bin/sh]
    env: { MODE: fast, PORT: 6379, DEBUG: false, EMPTY: "" }
    user: "1000:1000"
    working_dir: /data
    volumes: [cache-data:/data, "./conf:/etc/cache:ro", /srv/x:/x:rw]
    ports: ["6379:6379", "0.0.0.0:8080:80/tcp", "[::1]:53:53/udp"]
    networks: [back, front]
    limits: { cpu: 1.5, memory_bytes: 512MiB, processes: 100, log_bytes: 1MiB }
    gpus: [GPU-1]
    health: { command: [ping, -c1], interval: 5s, timeout: 2s, retries: 4, start_period: 1m, on_failure: report }
    restart: on-failure
    stop_grace: 30s
`);
    expect(problems).toEqual([]);
    expect(stopWithAgent).toBe(true);
    expect(services).toEqual([
      {
        name: 'cache',
        image: 'registry.example.org:5000/cache:8',
        pull: 'always',
        command: ['cache-server', '--save', ''],
        entrypoint: ['/bin/sh'],
        env: { MODE: 'fast', PORT: '6379', DEBUG: 'false', EMPTY: '' },
        user: '1000:1000',
        workingDir: '/data',
        volumes: [
          { kind: 'volume', source: 'cache-data', target: '/data', readOnly: false },
          { kind: 'bind', source: '/etc/harrier/conf', target: '/etc/cache', readOnly: true },
          { kind: 'bind', source: '/srv/x', target: '/x', readOnly: false },
        ],
        ports: [
          { hostIp: '127.0.0.1', hostPort: 6379, containerPort: 6379, protocol: 'tcp' },
          { hostIp: '0.0.0.0', hostPort: 8080, containerPort: 80, protocol: 'tcp' },
          { hostIp: '::1', hostPort: 53, containerPort: 53, protocol: 'udp' },
        ],
        networks: ['back', 'front'],
        limits: { cpu: 1.5, memoryBytes: 512 * 1024 ** 2, processes: 100, logBytes: 1024 ** 2 },
        gpus: ['GPU-1'],
        health: {
          probe: { kind: 'command', argv: ['ping', '-c1'] },
          intervalMs: 5_000,
          timeoutMs: 2_000,
          retries: 4,
          startPeriodMs: 60_000,
          onFailure: 'report',
        },
        restart: 'on-failure',
        stopGraceMs: 30_000,
      },
    ]);
  });

  it('overrides fields in the environment that is in force, and variables and limits one by one', () => {
    const text = `services:
  - { name: db, image: "db:1", env: { A: "1", B: "2" }, limits: { cpu: 1, processes: 9 }, command: [a, b] }
  - { name: debug, image: "tool:1", enabled: false }
environments:
  staging:
    services:
      debug: { enabled: true }
  production:
    services:
      db: { image: "db:2", env: { B: "3", A: }, limits: { cpu: 8 }, command: [] }
      debug:
`;
    expect(parse(text)).toMatchObject({
      problems: [],
      services: [{ name: 'db', image: 'db:1', env: { A: '1', B: '2' } }],
    });
    expect(parse(text, 'staging').services.map(({ name }) => name)).toEqual(['db', 'debug']);
    const [production, ...others] = parse(text, 'production').services;
    expect(production).toMatchObject({ image: 'db:2', env: { B: '3' }, limits: { cpu: 8, processes: 9 }, command: [] });
    expect([production?.env.A, others]).toEqual([undefined, []]);
  });

  it('tells every problem with its line and field, of every environment', () => {
    expect(
      problemsOf(`services:
  - name: Bad Name
    image: "no such:image!"
    restart: sometimes
    volumes: [data, "data:relative", 7]
    ports: [80, "99999:80"]
    health: { interval: 0s }
    limits: { memory_bytes: lots, cpu: -1 }
    networks: [host, back]
    gpus: some
    color: red
  - image: x
  - { name: twice, image: x }
  - { name: twice }
environments:
  production: { services: { ghost: { image: y }, twice: { pull: maybe } } }
retries: 3
`),
    ).toEqual([
      's.yaml:2:11: services[0].name: must be of a-z, 0-9, "-", "_" and ".", at most 63, not "Bad Name"',
      expect.stringMatching(/^s\.yaml:3:12: services\[0\]\.image: "no such:image!" names no image/),
      's.yaml:4:14: services[0].restart: must be one of always, on-failure, never, not "sometimes"',
      's.yaml:5:15: services[0].volumes[0]: must be SOURCE:TARGET or SOURCE:TARGET:ro, not "data"',
      's.yaml:5:21: services[0].volumes[1]: the target must be an absolute path, not "relative"',
      's.yaml:5:38: services[0].volumes[2]: must be a text; put it in quotes',
      's.yaml:6:13: services[0].ports[0]: must be a text; put it in quotes',
      expect.stringMatching(
        /^s\.yaml:6:17: services\[0\]\.ports\[1\]: must be HOST_PORT:CONTAINER_PORT or .* not "99999:80"/,
      ),
      's.yaml:7:13: services[0].health.command: exactly one of `command` and `http` says how it is checked',
      's.yaml:7:25: services[0].health.interval: must be longer than 0',
      's.yaml:8:29: services[0].limits.memory_bytes: must be bytes like 268435456 or 256MiB, not "lots"',
      's.yaml:8:40: services[0].limits.cpu: must not be negative, as -1 is',
      's.yaml:9:15: services[0].networks: host cannot be had together with other networks',
      's.yaml:10:11: services[0].gpus: must be all, or a list of UUIDs, not "some"',
      expect.stringMatching(/^s\.yaml:11:5: services\[0\]: there is no field "color"; there are .*volumes/),
      's.yaml:12:5: services[1].name: is missing',
      's.yaml:14:13: services[3].name: "twice" is already in line 13',
      's.yaml:16:27: environments.production.services: there is no service "ghost" to override; there are Bad Name, twice',
      's.yaml:16:65: environments.production.services.twice.pull: must be one of always, if-missing, never, not "maybe"',
      's.yaml:17:1: there is no field "retries"; there are environments, services, stop_with_agent',
    ]);
  });

  it('needs an image, from the entry or from the override', () => {
    const text = 'services:\n  - name: a\nenvironments:\n  production: { services: { a: { image: x } } }\n';
    expect(problemsOf(text, 'production')).toEqual([]);
    expect(problemsOf(text)).toEqual(['s.yaml:2:5: services[0].image: is missing']);
  });

  it.each(['/var/run/docker.sock', '/run/docker.sock', '/run', '/var/run/', '/'])(
    'refuses %s, which has the socket of the engine, unless that is said',
    (path) => {
      const file = (more: string) => `services:\n  - { name: a, image: x, volumes: ["${path}:/host:ro"]${more} }\n`;
      expect(problemsOf(file(''))).toEqual([
        expect.stringMatching(/^s\.yaml:2:35: services\[0\]\.volumes: .* say allow_docker_socket: true$/),
      ]);
      expect(problemsOf(file(', allow_docker_socket: true'))).toEqual([]);
    },
  );

  it('takes a directory beside the socket', () => {
    expect(problemsOf('services:\n  - { name: a, image: x, volumes: ["/run/docker:/host"] }\n')).toEqual([]);
  });

  it.each(['host', 'none'])('publishes no port on the network %s', (network) => {
    expect(problemsOf(`services:\n  - { name: a, image: x, ports: ["80:80"], networks: [${network}] }\n`)).toEqual([
      `s.yaml:2:33: services[0].ports: cannot be published on the network ${network}`,
    ]);
  });

  it('refuses a GPU that the settings give to executions', () => {
    const gpus = (text: string) => problemsOf(`services:\n  - { name: a, image: x, gpus: ${text} }\n`);
    expect(gpus('[GPU-own]')).toEqual([]);
    const rest = 'given to executions: leave out of HARRIER_AGENT_GPUS what a service has';
    expect(gpus('[GPU-own, GPU-given]')).toEqual([`s.yaml:2:32: services[0].gpus: GPU-given is ${rest}`]);
    expect(gpus('all')).toEqual([`s.yaml:2:32: services[0].gpus: cards are ${rest}`]);
    expect(gpus('["0"]')).toEqual([expect.stringContaining('gpus[0]: must be the UUID of a GPU')]);
  });

  it('refuses a port that two services of one environment want', () => {
    const text = `services:
  - { name: a, image: x, ports: ["80:80"] }
  - { name: b, image: x, ports: ["80:8080"], enabled: false }
environments:
  production: { services: { b: { enabled: true } } }
`;
    const problem = 's.yaml:3:33: services[1].ports: 127.0.0.1:80/tcp is already that of the service a';
    expect([problemsOf(text), problemsOf(text, 'production')]).toEqual([[problem], [problem]]);
  });

  it('refuses an environment that the file does not know, if it knows any', () => {
    const text = 'services: []\nenvironments: { staging: , production: }\n';
    expect(problemsOf(text, 'prodution')).toEqual([
      's.yaml:2:15: environments: there is no environment "prodution" (HARRIER_ENVIRONMENT); there are staging, production',
    ]);
    expect([problemsOf(text), problemsOf('services: []', 'prodution')]).toEqual([[], []]);
  });

  it.each([
    ['- a', 's.yaml:1:1: a services file is a map with the key `services`'],
    ['services: { a: 1 }', 's.yaml:1:11: services: must be a list of maps'],
    ['services: [a]', 's.yaml:1:12: services[0]: must be a map'],
    ['services:\n  - name: [', 's.yaml:2:12: this is not YAML'],
  ])('tells what is wrong with the form of %j', (text, problem) => {
    expect(problemsOf(text)[0]).toContain(problem);
  });
});
