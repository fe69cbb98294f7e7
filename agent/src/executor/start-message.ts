import type { Duration } from '@bufbuild/protobuf/wkt';
import type { Assignment } from '@harrier/shared/gen/link';
import type { Limits } from '@harrier/shared/gen/module';
import type { PreparedEnvironment } from '../environment/environment.ts';
import { environmentKind } from '../environment/environment-request.ts';
import type { StartEnvironment, StartLimits, StartMessage } from '../launcher/messages.ts';
import { type GpuAccess, gpuVariables } from './gpu-access.ts';
import { startNetwork } from './start-network.ts';

/** Time between asking code to stop and killing it, when its timeout is reached. */
const TIMEOUT_GRACE_MS = 2_000;
/** Where an assignment does not say: more than any numeric library starts, fewer than hurt the host. */
const DEFAULT_PROCESSES = 512;

export interface StartOptions {
  /** Undefined: the launcher's own interpreter. */
  environment: StartEnvironment | undefined;
  /** The program that runs source text which is not Python; absent: there is none. */
  scriptCommand?: PreparedEnvironment['scriptCommand'];
  /** How it gets to its GPUs; undefined: it has none, or sees them anyway. */
  gpus?: GpuAccess | undefined;
  /** What the preparation wrote: the beginning of standard error, which the control plane gets from the agent. */
  prelude: Uint8Array;
  /** What calls with network INDEX may reach, each `HOST:PORT`. */
  indexHosts: readonly string[];
}

/** An assignment as the launcher takes it; undefined when its program is of a kind that the launcher does not run. */
export function startMessage(
  assignment: Assignment,
  { environment: prepared, scriptCommand, gpus, prelude, indexHosts }: StartOptions,
  nowMs: number = Date.now(),
): { message: StartMessage; body: Uint8Array[] } | undefined {
  const { ref, tenant, taskClass, traceParent, program, inputJson } = assignment;
  const execution = ref?.executionId ?? '';
  const attempt = ref?.attempt ?? 0;
  const network = startNetwork(assignment.limits, indexHosts);
  const environment = gpus === undefined ? prepared : gpuEnvironment(prepared, gpus, `gpu-${execution}-${attempt}`);
  const { gpuUuids } = assignment;
  const timeoutMs = Math.ceil(durationMs(assignment.timeout));
  const common = {
    type: 'start',
    execution,
    attempt,
    tenant,
    input_bytes: inputJson.length,
    env: { ...assignment.env, ...gpuVariables(gpuUuids) },
    timeout_ms: timeoutMs,
    grace_ms: TIMEOUT_GRACE_MS,
    limits: startLimits(assignment.limits),
    context: {
      execution_id: execution,
      attempt,
      tenant,
      deadline: timeoutMs === 0 ? null : (nowMs + timeoutMs) / 1000,
    },
    max_disconnect_ms: maxDisconnectMs(assignment),
    about: { task_class: taskClass, environment: environmentKind(assignment), trace_parent: traceParent },
    ...(environment === undefined ? {} : { environment }),
    ...(network === undefined ? {} : { network }),
    ...(prelude.length === 0 ? {} : { prelude_bytes: prelude.length }),
    ...(gpuUuids.length === 0 ? {} : { gpus: gpuUuids }),
  } as const;
  const head = prelude.length === 0 ? [] : [prelude];
  if (program.case === 'python') {
    const { source, handler, filename, reuseKey } = program.value;
    const code = Buffer.from(source, 'utf8');
    return {
      message: {
        ...common,
        kind: 'python',
        handler,
        filename,
        code_bytes: code.length,
        // A process that is kept would keep its memory on a card.
        reuse_key: reuseKey === '' || gpuUuids.length > 0 ? null : reuseKey,
      },
      body: [...head, code, inputJson],
    };
  }
  if (program.case === 'script' && scriptCommand !== undefined) {
    const { source, handler, filename } = program.value;
    const code = Buffer.from(source, 'utf8');
    const argv = scriptCommand(common.limits.memory_bytes);
    const script = { kind: 'script', argv, handler, filename, code_bytes: code.length, reuse_key: null } as const;
    return { message: { ...common, ...script }, body: [...head, code, inputJson] };
  }
  if (program.case === 'command') {
    return {
      message: { ...common, kind: 'command', argv: program.value.argv, reuse_key: null },
      body: [...head, inputJson],
    };
  }
  return undefined;
}

/** The same environment with the cards of one attempt, in a sandbox of its own: nobody else's call may see them. */
function gpuEnvironment(
  prepared: StartEnvironment | undefined,
  { devices, libraries }: GpuAccess,
  key: string,
): StartEnvironment {
  const directories = libraries.map(({ target }) => target).join(':');
  const variables = directories === '' ? {} : { LD_LIBRARY_PATH: directories };
  return {
    ...prepared,
    key,
    binds: [...(prepared?.binds ?? []), ...libraries],
    variables: { ...variables, ...prepared?.variables },
    devices,
  };
}

/** Milliseconds of a duration; 0 when there is none. */
export function durationMs(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** How long an attempt may run on after the lease of its agent has ended. */
export function maxDisconnectMs({ maxDisconnect }: Assignment): number {
  return Math.floor(durationMs(maxDisconnect));
}

function startLimits(limits: Limits | undefined): StartLimits {
  return {
    memory_bytes: Number(limits?.memoryBytes ?? 0),
    cpu: limits?.cpu ?? 0,
    stdout_bytes: Number(limits?.stdoutBytes ?? 0),
    stderr_bytes: Number(limits?.stderrBytes ?? 0),
    result_bytes: Number(limits?.outputBytes ?? 0),
    tmp_bytes: Number(limits?.tmpBytes ?? 0),
    processes: limits?.processes || DEFAULT_PROCESSES,
  };
}
