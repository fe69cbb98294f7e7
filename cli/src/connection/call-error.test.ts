import { Code, ConnectError } from '@connectrpc/connect';
import { describe, expect, it } from 'vitest';
import { describeCallError, isConnectionLoss } from './call-error.ts';

const CONNECTION = { url: 'http://host:8000', key: 'hk_secret', keySource: '/data/admin.key' };

function lost(code: string): ConnectError {
  const cause = Object.assign(new Error(`${code} at connect`), { code });
  return new ConnectError('connect failed', Code.Unavailable, undefined, undefined, cause);
}

describe('describeCallError', () => {
  it.each([
    [
      lost('ECONNREFUSED'),
      3,
      /^no answer from the control plane at http:\/\/host:8000: .*refused\nstart one with `harrier up`/,
    ],
    [lost('ECONNRESET'), 3, /the connection was lost$/],
    [new ConnectError('shutting down', Code.Unavailable), 3, /http:\/\/host:8000: shutting down$/],
    [new ConnectError('HTTP 404', Code.Unimplemented), 3, /is not a Harrier control plane/],
    [
      new ConnectError('the API key is not valid', Code.Unauthenticated),
      2,
      /^the API key is not valid\nthe key came from \/data\/admin\.key$/,
    ],
    [new ConnectError('module.version: bad', Code.InvalidArgument), 2, /^module\.version: bad \(invalid_argument\)$/],
    [new ConnectError('there is no module "x"', Code.NotFound), 2, /\(not_found\)$/],
    [new ConnectError('oops', Code.Internal), 3, /^oops \(internal\)$/],
  ])('%s', (error, exitCode, message) => {
    expect(describeCallError(error, CONNECTION)).toMatchObject({ exitCode, message: expect.stringMatching(message) });
  });

  it('never shows the key', () => {
    const shown = describeCallError(new ConnectError('no', Code.Unauthenticated), CONNECTION);
    expect(String(shown)).not.toContain(CONNECTION.key);
  });

  it('leaves other errors alone', () => {
    const error = new TypeError('a defect');
    expect(describeCallError(error, CONNECTION)).toBe(error);
  });
});

it('tells a lost connection from a refusal', () => {
  expect(isConnectionLoss(lost('ECONNRESET'))).toBe(true);
  expect(isConnectionLoss(new ConnectError('no', Code.PermissionDenied))).toBe(false);
  expect(isConnectionLoss(new Error('ECONNRESET'))).toBe(false);
});
