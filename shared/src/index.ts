export { type BackoffOptions, cappedExponentialMs, fullJitterMs } from './backoff.ts';
export { type DirectoryLock, type DirectoryLockOptions, lockDirectory } from './directory-lock.ts';
export { ENVIRONMENT_BOUNDS } from './environment-bounds.ts';
export { HarrierError, type HarrierErrorCode, type HarrierErrorOptions, messageOf } from './errors.ts';
export { canMove, isFinal } from './execution-state.ts';
export { AGENT_FAILPOINTS, armFailpoints, CONTROL_PLANE_FAILPOINTS, failpoint } from './failpoint.ts';
export {
  formatRequirement,
  type LabelRequirement,
  type LabelSelector,
  matchesLabels,
  matchesRequirement,
  parseLabelSelector,
} from './label-selector.ts';
export { continueLean, type LeanOptions } from './lean-process.ts';
export { BatchSender } from './link/batch-sender.ts';
export { closeReason } from './link/close-reason.ts';
export { FlushSchedule } from './link/flush-schedule.ts';
export { LINK_PATH, LINK_SUBPROTOCOL, LinkCodec, type LinkSide, MAX_FRAME_BYTES } from './link/frame-codec.ts';
export { LinkProtocolError } from './link/protocol-error.ts';
export { signedBytes } from './link/signature.ts';
export { createLogger, type Logger, type LoggerOptions } from './logger.ts';
export { isSecret, withoutCredentials } from './redaction.ts';
export { formatHostPort, type HostPort, parseHostPort, SettingsReader } from './settings.ts';
export { parseBytes, parseDurationMs } from './units.ts';
export { VERSION } from './version.ts';
