import { expect, test } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { EngineUnavailableError } from './engine.ts';
import { ImagePolicy } from './image-policy.ts';
import { type HeldImage, Images, NoRoomError } from './images.ts';

const APP = 'ghcr.io/acme/app';
const OLD = `sha256:${'a'.repeat(64)}`;
const NEW = `sha256:${'b'.repeat(64)}`;
const EVIL = `sha256:${'c'.repeat(64)}`;
const silent = { onOutput: () => {}, onProgress: () => {} };
const never = new AbortController().signal;

/** An engine that has every image by digest, and the tag when `held` says what it is; the registry says `registered`. */
async function stand({ held, registered }: { held?: string; registered?: string }) {
  const { engine } = await standInEngine(({ url = '' }, response) => {
    const path = decodeURIComponent(url.split('?')[0] ?? '');
    const digest = /@(sha256:.*)\/json$/.exec(path)?.[1] ?? (path.startsWith('/images/') ? held : registered);
    response.setHeader('content-type', 'application/json').statusCode = digest === undefined ? 404 : 200;
    const told = { Id: `sha256:${'0'.repeat(64)}`, RepoDigests: [`${APP}@${digest}`], Size: 1 };
    response.end(JSON.stringify(digest === undefined ? { message: 'none' } : { ...told, Descriptor: { digest } }));
  });
  const policy = new ImagePolicy([`${APP}:stable`]);
  const images = new Images({ engine, policy, credentialsPath: undefined, logger: silentLogger() });
  const ensure = (text: string): Promise<HeldImage> => images.ensure(text, 'if_missing', silent, never);
  return { images, ensure };
}

test('where a tag is allowed, a digest beside it must be the one that the registry has for the tag', async () => {
  const { images, ensure } = await stand({ registered: NEW });
  expect((await ensure(`${APP}:stable@${NEW}`)).lock).toBe(`${APP}:stable@${NEW}`);
  const denial = { denied: true, message: expect.stringContaining(`${APP}:stable is ${NEW} by now`) };
  await expect(ensure(`${APP}:stable@${EVIL}`)).rejects.toMatchObject(denial);
  await expect(images.resolve(`${APP}:stable@${EVIL}`, 'if_missing', never)).rejects.toMatchObject(denial);
  await expect(ensure(`${APP}@${NEW}`)).rejects.toMatchObject({ denied: true });
  await expect(ensure(`${APP}:other@${NEW}`)).rejects.toMatchObject({ denied: true });
});

test('where a tag is allowed, so is the digest that the engine has for it, and one that was decided', async () => {
  const { images, ensure } = await stand({ held: OLD });
  expect((await ensure(`${APP}:stable@${OLD}`)).lock).toBe(`${APP}:stable@${OLD}`);
  // The registry cannot say what the tag names: that is no verdict.
  await expect(ensure(`${APP}:stable@${NEW}`)).rejects.toMatchObject({ denied: false });
  images.trust(`${APP}:stable@${NEW}`, `${APP}:other`);
  await expect(ensure(`${APP}:stable@${NEW}`)).rejects.toMatchObject({ denied: false });
  images.trust(`${APP}:stable@${NEW}`, `${APP}:stable`);
  expect((await ensure(`${APP}:stable@${NEW}`)).lock).toBe(`${APP}:stable@${NEW}`);
});

test('an engine that hangs holds nobody who gives up, and nobody when it is lost', async () => {
  let asked = Promise.withResolvers<void>();
  const { engine } = await standInEngine(() => asked.resolve());
  const policy = new ImagePolicy(['*']);
  const images = new Images({ engine, policy, credentialsPath: undefined, logger: silentLogger() });
  const ways = [
    (signal: AbortSignal) => images.ensure('a:b', 'if_missing', silent, signal),
    (signal: AbortSignal) => images.resolve('a:b', 'if_missing', signal),
  ];
  for (const way of ways) {
    asked = Promise.withResolvers();
    const given = new AbortController();
    const asking = way(given.signal);
    asking.catch(() => {});
    await asked.promise;
    given.abort(new Error('no longer wanted'));
    await expect(asking).rejects.toThrow('no longer wanted');
  }
  const left = ways.map((way) => way(never));
  for (const each of left) each.catch(() => {});
  engine.close();
  for (const each of left) await expect(each).rejects.toThrow(EngineUnavailableError);
});

test('without room nothing is fetched, and what is there is used', async () => {
  const pulled: string[] = [];
  const { engine } = await standInEngine(({ method, url = '' }, response) => {
    if (method === 'POST') pulled.push(url);
    const isThere = url.includes('there');
    response.setHeader('content-type', 'application/json').statusCode = isThere || method === 'POST' ? 200 : 404;
    response.end(JSON.stringify(isThere ? { Id: OLD, RepoDigests: [], Size: 1 } : {}));
  });
  const policy = new ImagePolicy(['*']);
  let full: string | undefined = 'too little is free';
  const asked: string[] = [];
  const whyNoRoom = (dataDir: string) => {
    asked.push(dataDir);
    return full;
  };
  const images = new Images({ engine, policy, credentialsPath: undefined, whyNoRoom, logger: silentLogger() });
  const ensure = (text: string, rule: 'always' | 'if_missing') => images.ensure(text, rule, silent, never);
  for (const rule of ['always', 'if_missing'] as const) {
    const refused = ensure('missing:1', rule);
    await expect(refused).rejects.toThrow(NoRoomError);
    await expect(refused).rejects.toThrow('no room for the image docker.io/library/missing:1: too little is free');
  }
  expect(asked).toEqual(['/srv/docker', '/srv/docker']);
  expect((await ensure('there:1', 'if_missing')).id).toBe(OLD);
  expect(pulled).toEqual([]);
  // It may have been moved; mostly it was not.
  expect((await ensure('there:1', 'always')).id).toBe(OLD);
  expect(pulled).toHaveLength(1);
  full = undefined;
  await expect(ensure('missing:1', 'if_missing')).rejects.toThrow('is gone after it was fetched');
  expect(pulled).toHaveLength(2);
});
