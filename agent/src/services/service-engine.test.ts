import type { RequestListener } from 'node:http';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { DEFAULTS } from './read-service.ts';
import type { ServiceDefinition } from './service-definition.ts';
import { ServiceEngine } from './service-engine.ts';

const definition: ServiceDefinition = {
  ...DEFAULTS,
  name: 'cache',
  image: 'cache:1',
  networks: ['back', 'front', 'far'],
};

/** An engine with one container; it notes what changes something. A real one is in test/e2e/services.test.ts. */
async function engineWith(connected: string[], known: string[]) {
  const changes: string[] = [];
  const answer: RequestListener = async (request, response) => {
    const path = new URL(request.url ?? '', 'http://engine').pathname;
    const body = await text(request);
    if (request.method === 'POST') changes.push(`${path} ${body}`.trim());
    const answers: Record<string, unknown> = {
      '/containers/c1/json': { NetworkSettings: { Networks: Object.fromEntries(connected.map((name) => [name, {}])) } },
      '/networks': known.map((Name) => ({ Name })),
    };
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answers[path] ?? {}));
  };
  const { engine } = await standInEngine(answer);
  return { services: new ServiceEngine(engine, '/var/lib/agent', () => {}), changes };
}

const joined = (network: string): string =>
  `/networks/${network}/connect {"Container":"c1","EndpointConfig":{"Aliases":["cache"]}}`;

test('a container that was left before it had all of its networks gets them before it is started', async () => {
  const { services, changes } = await engineWith(['back'], ['back', 'front']);
  await services.start(definition, 'c1');
  expect(changes).toEqual([
    joined('front'),
    expect.stringMatching(/^\/networks\/create .*"Name":"far"/),
    joined('far'),
    '/containers/c1/start',
  ]);
});

test('one that has them is only started', async () => {
  const { services, changes } = await engineWith(['back', 'front', 'far'], []);
  await services.start(definition, 'c1');
  expect(changes).toEqual(['/containers/c1/start']);
});

test('one that cannot get them is not started', async () => {
  const { engine } = await standInEngine((request, response) => {
    const isLook = request.url?.endsWith('/json') === true || request.url?.startsWith('/networks?') === true;
    if (request.url?.endsWith('/start')) throw new Error('the container was started');
    response.writeHead(isLook ? 200 : 500, { 'content-type': 'application/json' });
    const networks = { NetworkSettings: { Networks: { back: {} } } };
    response.end(
      JSON.stringify(isLook ? (request.url?.endsWith('/json') ? networks : []) : { message: 'no more subnets' }),
    );
  });
  const services = new ServiceEngine(engine, '/var/lib/agent', () => {});
  await expect(services.start(definition, 'c1')).rejects.toThrow('no more subnets');
});
