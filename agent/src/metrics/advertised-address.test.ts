import { expect, test } from 'vitest';
import { advertisedAddress } from './advertised-address.ts';

test.each([
  [
    'what the operator says',
    { host: '10.0.0.1', port: 1 },
    { host: 'gpu-1.example.org', port: 9465 },
    'gpu-1.example.org:9465',
  ],
  ['with the port of the listener where it says none', { host: '0.0.0.0', port: 7 }, { host: 'a', port: 0 }, 'a:7'],
  ['nothing for the loopback', { host: '127.0.0.1', port: 9465 }, undefined, ''],
  ['nothing for the loopback of IPv6', { host: '::1', port: 9465 }, undefined, ''],
  ['the name of the host for every address', { host: '0.0.0.0', port: 9465 }, undefined, 'host-1:9465'],
  ['the address that is listened on', { host: 'fd00::1', port: 9465 }, undefined, '[fd00::1]:9465'],
])('an agent advertises %s', (_, listen, advertise, expected) => {
  expect(advertisedAddress(listen, advertise, 'host-1')).toBe(expected);
});
