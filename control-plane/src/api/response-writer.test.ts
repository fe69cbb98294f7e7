import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createLogger } from '@harrier/shared';
import { expect, onTestFinished, test, vi } from 'vitest';
import { settle } from './response-writer.ts';

/** A request that nobody has answered yet. */
async function request() {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const caller = connect((server.address() as AddressInfo).port, '127.0.0.1');
  caller.resume().write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  onTestFinished(() => {
    caller.destroy();
    server.close();
  });
  const [, response] = (await once(server, 'request')) as [unknown, ServerResponse];
  const logger = createLogger({ name: 'test', level: 'silent' });
  return { caller, response, logger, error: vi.spyOn(logger, 'error'), debug: vi.spyOn(logger, 'debug') };
}

test('what fails while somebody waits for the answer is an error, and ends the waiting', async () => {
  const { caller, response, logger, error, debug } = await request();
  const reason = new Error('a file is not there');
  settle(Promise.reject(reason), response, logger);
  await once(caller, 'close');
  expect(error.mock.calls).toEqual([[{ err: reason }, 'response was not delivered']]);
  expect(debug).not.toHaveBeenCalled();
});

test('what fails because the caller has gone, or waits no longer, is none', async () => {
  const gone = await request();
  gone.caller.destroy();
  await once(gone.response, 'close');
  const late = await request();
  const settled: [typeof gone, Error][] = [
    [gone, new Error('the stream was closed')],
    [late, new DOMException('the caller waits no longer', 'AbortError')],
  ];
  for (const [{ response, logger, error, debug }, reason] of settled) {
    settle(Promise.reject(reason), response, logger);
    await vi.waitFor(() => expect(debug.mock.calls).toEqual([[{ err: reason }, 'response was not delivered']]));
    expect(error).not.toHaveBeenCalled();
  }
});
