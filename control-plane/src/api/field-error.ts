import { create } from '@bufbuild/protobuf';
import { ViolationsSchema } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { Code, ConnectError } from '@connectrpc/connect';

/** An error about one field of the request: its path leads the message and is in a `buf.validate.Violations` detail. */
export function fieldError(
  path: string,
  problem: string,
  code: Code = Code.InvalidArgument,
  cause?: unknown,
): ConnectError {
  const error = new ConnectError(
    problem.startsWith(path) ? problem : `${path}: ${problem}`,
    code,
    undefined,
    undefined,
    cause,
  );
  const elements = path.split('.').map((fieldName) => ({ fieldName }));
  const value = create(ViolationsSchema, { violations: [{ field: { elements }, message: problem }] });
  error.details.push({ desc: ViolationsSchema, value });
  return error;
}
