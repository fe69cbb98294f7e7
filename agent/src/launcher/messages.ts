import { LauncherProtocolError } from './frame-codec.ts';

/** The messages of docs/launcher-protocol.md, as they are on the socket. */

export const PROTOCOL = 1;

export interface AttemptFields {
  execution: string;
  attempt: number;
}

export interface StartLimits {
  memory_bytes: number;
  /** Cores; 0 = no limit. */
  cpu: number;
  stdout_bytes: number;
  stderr_bytes: number;
  result_bytes: number;
  tmp_bytes: number;
  processes: number;
}

/** A directory or file of the host in the sandbox, read-only unless writable. Absolute paths. */
export interface Bind {
  source: string;
  target: string;
  writable: boolean;
}

/** What a call runs in, where it is not the launcher's own interpreter. */
export interface StartEnvironment {
  /** At most 256 characters. Calls of the same tenant and key share a zygote. */
  key: string;
  /** Interpreter as seen inside the sandbox; absent: the launcher's own. */
  python?: string;
  binds?: readonly Bind[];
  /** Variables of the sandbox, before those of the call. */
  variables?: Readonly<Record<string, string>>;
  /** Modules that the zygote imports before it forks. */
  preload?: readonly string[];
  /** The zygote is not started by the launcher, but has connected by itself from a container. */
  attached?: boolean;
  /** Device nodes of GPUs, seen below /dev/nvidia…. With them the zygote serves this call only, and ends with it. */
  devices?: readonly Pick<Bind, 'source' | 'target'>[];
  /** No process is kept ready for a further call. */
  single?: boolean;
}

/** The process of a first call, as it is forked ahead of it. */
export interface ExpectedWorker {
  tmp_bytes: number;
  /** The call will have a network. */
  network: boolean;
}

/** What a call may reach. `hosts`: names or addresses, `*.` at the start for all names below, `:PORT` at the end. */
export type StartNetwork = { mode: 'hosts'; hosts: readonly string[] } | { mode: 'full' };

/** What the launcher itself has no use for. */
export interface StartAbout {
  task_class: string;
  /** Kind of the environment. */
  environment: string;
  /** W3C trace context; empty: it is not traced. */
  trace_parent: string;
}

interface StartCommon extends AttemptFields {
  type: 'start';
  tenant: string;
  input_bytes: number;
  env: Readonly<Record<string, string>>;
  /** 0 = none. */
  timeout_ms: number;
  grace_ms: number;
  reuse_key: string | null;
  limits: StartLimits;
  /** Handed to the handler's context; `deadline` is Unix seconds. */
  context: { execution_id: string; attempt: number; tenant: string; deadline: number | null };
  /** Absent: the launcher's own interpreter. */
  environment?: StartEnvironment;
  /** Absent: a loopback interface. */
  network?: StartNetwork;
  /** How long it may run on after the lease has ended; absent: it does not depend on the lease. */
  max_disconnect_ms?: number;
  /** UUIDs of the GPUs that the agent has reserved for it; `welcome` tells them again. Absent: none. */
  gpus?: readonly string[];
  /** What `welcome` tells again, for the log and the metrics of a later agent. */
  about?: StartAbout;
  /** That many first bytes of the body are the first of the attempt's stderr, and are known to the agent already. */
  prelude_bytes?: number;
}

/** The body is the code, then the input. */
export type StartMessage =
  | (StartCommon & { kind: 'python'; handler: string; filename: string; code_bytes: number })
  | (StartCommon & { kind: 'command'; argv: readonly string[] })
  | (StartCommon & {
      kind: 'script';
      argv: readonly string[];
      handler: string;
      filename: string;
      code_bytes: number;
    });

export type CancelReason = 'cancel' | 'shutdown';

export type ToLauncher =
  | { type: 'hello'; protocol: number }
  | StartMessage
  | (AttemptFields & { type: 'cancel'; reason: CancelReason; grace_ms: number })
  | (AttemptFields & { type: 'ack'; stdout: number; stderr: number; result: boolean })
  | { type: 'warm'; tenant: string; environment: StartEnvironment; worker?: ExpectedWorker }
  | { type: 'retire'; tenant: string; key: string }
  | ExpectMessage
  | LeaseMessage
  | GuardMessage
  | (AttemptFields & { type: 'unguard' })
  | { type: 'stop'; grace_ms: number };

/** Until when the agent owns its attempts, by CLOCK_MONOTONIC. */
export interface LeaseMessage {
  type: 'lease';
  /** Null: for as long as it likes. */
  until_ms: number | null;
  /** How long before that attempts are asked to stop. */
  grace_ms: number;
}

/** A container ends with the lease although the launcher has not started it. */
export interface GuardMessage extends AttemptFields {
  type: 'guard';
  /** Path of the engine's socket. */
  engine: string;
  container: string;
  /** Path of the file that says that it was ended with the lease. */
  mark: string;
  max_disconnect_ms: number;
}

/** An interpreter in a container will connect to the socket. */
export interface ExpectMessage {
  type: 'expect';
  tenant: string;
  key: string;
  /** Path of the socket; its directory is there. */
  socket: string;
  variables: Readonly<Record<string, string>>;
  preload: readonly string[];
}

export interface WelcomeMessage {
  type: 'welcome';
  protocol: number;
  version: string;
  /** Absent in old launchers. */
  features?: readonly string[];
  /** What it was started from; absent in old launchers. */
  build?: string;
  pid: number;
  isolation: 'sandbox' | 'none';
  /** Version of the interpreter of inline code, and where it is. */
  python: string;
  python_path: string;
  /** Of `memory`, `cpu` and `processes`: those that hold for an attempt as a whole. */
  cgroup_limits?: readonly string[];
  /** For how long it has run; absent in old launchers. */
  age_ms?: number;
  attempts: (AttemptFields & {
    state: 'running' | 'finished';
    stdout: number;
    stderr: number;
    gpus?: readonly string[];
    /** From the body of `welcome`; absent in old launchers, and where the launcher was started again since. */
    about?: { tenant: string } & Partial<StartAbout>;
  })[];
}

export interface FinishedMessage extends AttemptFields {
  type: 'finished';
  outcome: 'succeeded' | 'failed' | 'timed_out' | 'cancelled';
  error: { code: string; message: string; details?: Record<string, unknown> | null } | null;
  exit_code: number | null;
  signal: number | null;
  run_ms: number;
  stdout: number;
  stderr: number;
  stdout_truncated: boolean;
  stderr_truncated: boolean;
  usage: { cpu_ms: number; max_rss_bytes: number } | null;
  /** It ended while it waited for a process. Absent: its code may have run, or the launcher is an old one. */
  never_started?: true;
}

export interface LoadMessage {
  type: 'load';
  active: number;
  zygotes: number;
  workers: number;
  spool_bytes: number;
}

export type FromLauncher =
  | WelcomeMessage
  | (AttemptFields & { type: 'started' })
  | (AttemptFields & { type: 'output'; stream: 'stdout' | 'stderr'; offset: number })
  | (AttemptFields & { type: 'progress'; percent: number; step: string })
  | FinishedMessage
  | { type: 'attached'; tenant: string; key: string }
  | { type: 'detached'; tenant: string; key: string; reason: string }
  | LoadMessage;

const ATTEMPT_TYPES: ReadonlySet<unknown> = new Set(['started', 'output', 'progress', 'finished']);

/**
 * Takes a header for the message that it claims to be. The launcher is our own, so what is checked is that it speaks this
 * protocol, not every field.
 * @throws LauncherProtocolError
 */
export function asFromLauncher(header: unknown): FromLauncher {
  if (typeof header !== 'object' || header === null || !('type' in header)) {
    throw new LauncherProtocolError('a frame has no type');
  }
  const { type, execution, attempt } = header as { type: unknown; execution?: unknown; attempt?: unknown };
  if (ATTEMPT_TYPES.has(type)) {
    if (typeof execution === 'string' && typeof attempt === 'number') return header as FromLauncher;
    throw new LauncherProtocolError(`"${type}" names no attempt`);
  }
  if (type === 'load' || type === 'attached' || type === 'detached') return header as FromLauncher;
  if (type === 'welcome') {
    const { protocol, attempts } = header as { protocol?: unknown; attempts?: unknown };
    if (protocol === PROTOCOL && Array.isArray(attempts)) return header as FromLauncher;
    throw new LauncherProtocolError(`the launcher speaks protocol ${String(protocol)}, not ${PROTOCOL}`);
  }
  throw new LauncherProtocolError(`"${String(type)}" is no message of the launcher`);
}

/** @param body JSON: what is known about each of the attempts, in their order, or null; empty: an old launcher tells nothing */
export function withAbout(welcome: WelcomeMessage, body: Uint8Array): WelcomeMessage {
  if (body.length === 0) return welcome;
  let told: unknown;
  try {
    told = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch (cause) {
    throw new LauncherProtocolError('the body of "welcome" is not JSON', { cause });
  }
  if (!Array.isArray(told)) throw new LauncherProtocolError('the body of "welcome" is not a list');
  const attempts = welcome.attempts.map((attempt, index) =>
    told[index] ? { ...attempt, about: told[index] } : attempt,
  );
  return { ...welcome, attempts };
}
