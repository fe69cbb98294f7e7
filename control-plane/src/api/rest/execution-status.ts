import { ExecutionError_Code as Code, type ExecutionError_Code } from '@harrier/shared/gen/error';

/** HTTP status of an execution that did not succeed, where its output would have been the body. */
const STATUS_BY_CODE: Record<number, number> = {
  [Code.INPUT_INVALID]: 400,
  [Code.POLICY_DENIED]: 403,
  [Code.CANCELLED]: 409,
  [Code.QUOTA_EXCEEDED]: 429,
  // What the code did wrong.
  [Code.OUTPUT_INVALID]: 500,
  [Code.OUTPUT_TOO_LARGE]: 500,
  [Code.HANDLER_NOT_FOUND]: 500,
  [Code.HANDLER_ERROR]: 500,
  [Code.EXIT_NONZERO]: 500,
  [Code.OUT_OF_MEMORY]: 500,
  [Code.KILLED]: 500,
  [Code.INTERNAL]: 500,
  // What was around it: another try can succeed.
  [Code.ARTIFACT_FAILED]: 502,
  [Code.ENVIRONMENT_FAILED]: 503,
  [Code.AGENT_LOST]: 503,
  [Code.NO_ELIGIBLE_AGENT]: 503,
  [Code.SUBMIT_FAILED]: 503,
  [Code.TIMEOUT]: 504,
};

export function executionErrorStatus(code: ExecutionError_Code): number {
  return STATUS_BY_CODE[code] ?? 500;
}
