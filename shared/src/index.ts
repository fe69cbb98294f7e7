export { type BackoffOptions, cappedExponentialMs, fullJitterMs } from './backoff.ts';
export { type DirectoryLock, type DirectoryLockOptions, lockDirectory } from './directory-lock.ts';
export { type DocumentFault, documentFault, MAX_DOCUMENT_DEPTH } from './document-fault.ts';
export { ENVIRONMENT_BOUNDS } from './environment-bounds.ts';
export { HarrierError, type HarrierErrorCode, type HarrierErrorOptions, messageOf } from './errors.ts';
export { canMove, isFinal } from './execution-state.ts';
export { AGENT_FAILPOINTS, armFailpoints, CONTROL_PLANE_FAILPOINTS, failpoint } from './failpoint.ts';
export { FileWatcher, type FileWatcherOptions } from './file-watcher.ts';
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
export { MAX_AGENT_SLOTS, MAX_HELD_ATTEMPTS } from './link/held-bounds.ts';
export { LinkProtocolError } from './link/protocol-error.ts';
export { signedBytes } from './link/signature.ts';
export { createLogger, type Logger, type LoggerOptions } from './logger.ts';
export { isSecret, withoutCredentials } from './redaction.ts';
export { formatHostPort, type HostPort, parseHostPort, SettingsReader } from './settings.ts';
export { type SystemdSettings, takeSystemdSettings } from './systemd/settings.ts';
export { Systemd } from './systemd/systemd.ts';
export { openTracing } from './tracing/open-tracing.ts';
export { formatTraceParent, parseTraceParent, type TraceParent } from './tracing/trace-parent.ts';
export { NO_TRACING, type Span, type SpanAttributes, type Tracing } from './tracing/tracing.ts';
export { readTracingSettings, TRACING_SECRETS, type TracingSettings } from './tracing/tracing-settings.ts';
export { parseBytes, parseDurationMs } from './units.ts';
export { VERSION } from './version.ts';
export { OutOfTimeError, threadCpuMs, withinTime } from './within-time.ts';
