import type { JsonObject } from '@bufbuild/protobuf';
import { documentFault } from '@harrier/shared';

const MAX_BYTES = 64 * 1024;

/**
 * Details of an error as a frame can carry them: what a container has written may be so deep or so large that the frame
 * could not be made, or would not be read. Such details are left out, with the reason under `omitted`.
 */
export function sendableDetails(details: JsonObject): JsonObject {
  const fault = documentFault(details);
  if (fault !== undefined) return { omitted: `$${fault.path}: ${fault.problem}` };
  // Not before: the writer goes down by calling itself.
  if (Buffer.byteLength(JSON.stringify(details)) <= MAX_BYTES) return details;
  return { omitted: `the details are larger than ${MAX_BYTES} bytes` };
}
