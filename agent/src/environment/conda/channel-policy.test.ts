import { expect, test } from 'vitest';
import { chooseChannels, toInside, toOutside } from './channel-policy.ts';

const PACKAGE = 'noarch/x-1-0.conda';

function chosen(...channels: string[]) {
  return chooseChannels({ channels, allowed: [] }, []);
}

test.each([
  ['a token', 'https://host.example/t/TOKEN', 'https://host.example'],
  ['a token and a path', 'https://host.example/t/TOKEN/channel', 'https://host.example/channel'],
  ['a password', 'https://user:word@host.example/channel', 'https://host.example/channel'],
])('%s comes into a URL once, and out of it', (_, secret, open) => {
  const channels = chosen('conda-forge', secret);
  const inside = `${secret}/${PACKAGE}`;
  expect(toInside(channels, `${open}/${PACKAGE}`)).toBe(inside);
  expect(toInside(channels, inside)).toBe(inside);
  expect(toOutside(channels, inside)).toBe(`${open}/${PACKAGE}`);
});

test('a URL that has the URL of another channel in it is not given the secret of that', () => {
  const channels = chosen('conda-forge', 'https://user:word@private.example/channel');
  const url = `https://conda.anaconda.org/conda-forge/https://private.example/channel/${PACKAGE}`;
  expect(toInside(channels, url)).toBe(url);
});

test('a directory has another name inside', () => {
  const channels = chosen('file:///srv/channel');
  const inside = `file:///opt/harrier/channels/0/${PACKAGE}`;
  expect(toInside(channels, `file:///srv/channel/${PACKAGE}`)).toBe(inside);
  expect(toOutside(channels, inside)).toBe(`file:///srv/channel/${PACKAGE}`);
});
