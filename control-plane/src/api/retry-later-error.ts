import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { type Code, ConnectError } from '@connectrpc/connect';
import { RetryInfoSchema } from '@harrier/shared/gen/google/rpc/error_details';

/**
 * An error that tells when to try again, in each form that clients know: `Retry-After` (RFC 9110, whole seconds), the
 * trailer that gRPC's clients obey (`grpc-retry-pushback-ms`, gRFC A6), and a `google.rpc.RetryInfo` detail.
 */
export function retryLaterError(message: string, code: Code, retryAfterMs: number): ConnectError {
  const headers = {
    'retry-after': String(Math.ceil(retryAfterMs / 1000)),
    'grpc-retry-pushback-ms': String(Math.ceil(retryAfterMs)),
  };
  const error = new ConnectError(message, code, headers);
  const value = create(RetryInfoSchema, { retryDelay: durationFromMs(Math.ceil(retryAfterMs)) });
  error.details.push({ desc: RetryInfoSchema, value });
  return error;
}
