import type { DescMethod } from '@bufbuild/protobuf';
import { type CallContext, createCallContext } from '../call/call-context.ts';
import type { CallOptions } from '../call/call-options.ts';
import { decodeObserved } from '../call/decode-observed.ts';
import { createLocalCall } from '../call/local-call.ts';
import type { HttpRequest, HttpResponse, TryHandler } from '../http-types.ts';
import { toConnectError } from '../interceptors/errors.ts';
import { methodNameOf } from '../interceptors/method-name.ts';
import { readBody } from '../read-body.ts';
import { breakOff, settle } from '../response-writer.ts';
import { type UnaryProtocol, unaryProtocolOf } from './unary-protocol.ts';

/**
 * Serves the common unary calls: gRPC and Connect, uncompressed. Connect's own handlers run each call through a pipeline of
 * asynchronous generators, which costs two to three times as much; they keep everything else (streams, gRPC-Web, GET,
 * compression), for which this answers false.
 */
export function createUnaryHandler(method: DescMethod, implementation: object, options: CallOptions): TryHandler {
  const { bodies, gate, limits, logger, observe, shutdownSignal } = options;
  const call = createLocalCall(method, implementation, options.interceptors);

  return (request, response) => {
    const protocol = unaryProtocolOf(request);
    if (protocol === undefined) return false;
    settle(serve(protocol, request, response), response, logger);
    return true;
  };

  async function serve(protocol: UnaryProtocol, request: HttpRequest, response: HttpResponse): Promise<void> {
    let context: CallContext | undefined;
    try {
      context = createCallContext(method, request, response, {
        protocolName: protocol.name,
        timeout: (header) => protocol.timeout(header, limits.maxTimeoutMs),
        shutdownSignal,
      });
      await gate(context);
      const message = await decodeObserved(method, observe, async () =>
        protocol.decode(method.input, await readBody(request, limits.maxRequestBytes, bodies, protocol.envelopeBytes)),
      );
      const answer = await call.unary(message, context);
      protocol.sendAnswer(response, context, method.output, answer);
    } catch (error) {
      const name = methodNameOf(method);
      if (response.headersSent) {
        logger.error({ err: error, method: name }, 'response could not be sent');
        breakOff(response);
      } else
        protocol.sendError(response, context, toConnectError(error, { method: name, signal: context?.signal }, logger));
    } finally {
      context?.end();
    }
  }
}
