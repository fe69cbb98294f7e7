import type { DescMethod, Message } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import { codeToString } from '@connectrpc/connect/protocol-connect';
import { methodNameOf } from '../interceptors/method-name.ts';
import type { Observe } from '../interceptors/rpc-metrics.ts';

/** Runs what receives and decodes a request. When it throws, no interceptor will see the call, so it is told here. */
export async function decodeObserved(
  method: DescMethod,
  observe: Observe,
  decode: () => Promise<Message>,
): Promise<Message> {
  const startedMs = performance.now();
  try {
    return await decode();
  } catch (error) {
    const code = codeToString(ConnectError.from(error).code);
    observe(methodNameOf(method), code, (performance.now() - startedMs) / 1000);
    throw error;
  }
}
