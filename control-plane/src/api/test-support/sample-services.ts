import { create, type JsonObject, type MessageInitShape } from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import { HarrierError } from '@harrier/shared';
import { ExecutionError_Code } from '@harrier/shared/gen/error';
import {
  type ExecuteRequest,
  type Execution,
  Execution_State,
  ExecutionSchema,
  LogChunk_Stream,
  type WatchExecutionResponseSchema,
} from '@harrier/shared/gen/execution';
import { type Module, ModuleSchema } from '@harrier/shared/gen/module';
import type { ApiServices } from '../api-handler.ts';
import { principalKey } from '../interceptors/principal.ts';

export const EXECUTION_ID = '0190a0a0-7000-7000-8000-000000000001';

/** Bytes that are not UTF-8, with a NUL: what a log must carry unharmed. */
export const LOG_BYTES = Uint8Array.from([0x68, 0x69, 0x0a, 0xff, 0x00, 0xfe, 0x0a]);

/** Told when a call's signal aborts: what the tests wait for. */
export interface SampleEvents {
  onAborted(method: string, reason: unknown): void;
}

/**
 * Services that keep what they are given in memory. The name of the module chooses what `Execute` does: `echo` answers the
 * input, `fail` a failed execution, `missing` and `crash` refuse, `wait` waits until its signal aborts.
 */
export function createSampleServices(events: SampleEvents = { onAborted: () => {} }): ApiServices {
  const modules = new Map<string, Module>();
  const unused = () => {
    throw new HarrierError('failed_precondition', 'not part of the sample');
  };

  async function untilAborted(method: string, { signal }: HandlerContext): Promise<never> {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    events.onAborted(method, signal.reason);
    throw signal.reason;
  }

  async function execute(request: ExecuteRequest, context: HandlerContext): Promise<{ execution: Execution }> {
    context.responseHeader.set('harrier-execution-id', EXECUTION_ID);
    const module = request.target.case === 'module' ? request.target.value : '';
    const facts = { id: EXECUTION_ID, module, labels: request.labels, version: request.version };
    switch (module) {
      case 'missing':
        throw new HarrierError('not_found', 'no module has the name "missing"', { field: 'module' });
      case 'crash':
        throw new Error('password=hunter2');
      case 'wait':
        return untilAborted('Execute', context);
      case 'fail': {
        const error = { code: ExecutionError_Code.HANDLER_ERROR, message: 'ValueError: no', details: { line: 3 } };
        return { execution: create(ExecutionSchema, { ...facts, state: Execution_State.FAILED, error }) };
      }
      case 'timeout':
        return {
          execution: create(ExecutionSchema, {
            ...facts,
            state: Execution_State.TIMED_OUT,
            error: { code: ExecutionError_Code.TIMEOUT },
          }),
        };
      default: {
        const output: { output?: JsonObject; outputJson?: string } =
          request.inputForm.case === 'input'
            ? { output: request.inputForm.value }
            : { outputJson: request.inputForm.case === 'inputJson' ? request.inputForm.value : '{}' };
        return { execution: create(ExecutionSchema, { ...facts, state: Execution_State.SUCCEEDED, ...output }) };
      }
    }
  }

  async function* watch(request: {
    attempt: number;
    stdoutOffset: bigint;
    stderrOffset: bigint;
  }): AsyncGenerator<{ event: NonNullable<MessageInitShape<typeof WatchExecutionResponseSchema>['event']> }> {
    yield { event: { case: 'state', value: { id: EXECUTION_ID, state: Execution_State.RUNNING, attempt: 1 } } };
    for (const chunk of chunksFrom(request)) yield { event: { case: 'log', value: chunk } };
    yield { event: { case: 'result', value: { id: EXECUTION_ID, state: Execution_State.SUCCEEDED } } };
  }

  return {
    execution: {
      execute,
      async *executeStream() {
        yield* watch({ attempt: 0, stdoutOffset: 0n, stderrOffset: 0n });
      },
      async createExecution(request, context) {
        const { keyId } = context.values.get(principalKey) ?? { keyId: 'nobody' };
        return {
          execution: { id: EXECUTION_ID, state: Execution_State.PENDING, labels: { ...request.labels, keyId } },
        };
      },
      async getExecution({ id }) {
        if (id !== EXECUTION_ID) throw new HarrierError('not_found', `no execution has the id ${id}`, { field: 'id' });
        return { execution: { id, state: Execution_State.SUCCEEDED, stdoutBytes: 7n } };
      },
      async listExecutions(request) {
        const labels = { pageSize: String(request.pageSize), selector: request.labelSelector };
        const createTime = request.createTimeFrom;
        const execution = { id: EXECUTION_ID, state: request.state, module: request.module, labels };
        return { executions: [createTime === undefined ? execution : { ...execution, createTime }] };
      },
      async cancelExecution({ id, reason }) {
        return { execution: { id, state: Execution_State.CANCELLED, waitingReason: reason } };
      },
      watchExecution: watch,
      async *readLogs(request, context) {
        if (request.id !== EXECUTION_ID) throw new HarrierError('not_found', 'no such execution', { field: 'id' });
        for (const chunk of chunksFrom(request)) yield { chunk };
        if (request.follow) await untilAborted('ReadLogs', context);
        if (request.attempt === 9) throw new HarrierError('aborted', 'log of attempt 9 has a gap');
      },
    },
    module: {
      async createModule({ module = create(ModuleSchema) }) {
        if (modules.has(module.name)) throw new HarrierError('already_exists', `${module.name} exists`);
        modules.set(module.name, module);
        return { module };
      },
      validateModule: async () => ({ lock: 'six==1.17.0' }),
      async getModule({ name }) {
        const module = modules.get(name);
        if (module === undefined) throw new HarrierError('not_found', `no module has the name "${name}"`);
        return { module };
      },
      listModules: async () => ({ modules: [...modules.values()] }),
      listModuleVersions: async ({ name }) => ({ modules: [...modules.values()].filter((each) => each.name === name) }),
      deleteModule: async ({ name }) => ({ deletedVersions: modules.delete(name) ? 1 : 0 }),
    },
    workflow: {
      createWorkflow: unused,
      getWorkflow: unused,
      listWorkflows: unused,
      deleteWorkflow: unused,
      runWorkflow: unused,
      getWorkflowRun: unused,
      listWorkflowRuns: unused,
      watchWorkflowRun: unused,
      cancelWorkflowRun: unused,
      signalWorkflowRun: unused,
      retryWorkflowRun: unused,
    },
    schedule: {
      createSchedule: unused,
      getSchedule: unused,
      listSchedules: unused,
      updateSchedule: unused,
      deleteSchedule: unused,
      pauseSchedule: unused,
      resumeSchedule: unused,
      listScheduleFirings: unused,
    },
    agent: {
      listAgents: async () => ({ agents: [] }),
      getAgent: async ({ id }) => ({ agent: { id } }),
      drainAgent: unused,
      resumeAgent: unused,
      deleteAgent: async () => ({}),
      createJoinToken: async () => ({ token: 'secret' }),
      clearGpu: unused,
    },
  };
}

function chunksFrom(from: { attempt: number; stdoutOffset: bigint }) {
  const attempt = from.attempt === 0 ? 1 : from.attempt;
  const skipped = Number(from.stdoutOffset);
  if (skipped >= LOG_BYTES.length) return [];
  const halfway = Math.max(3, skipped);
  const pieces: [number, Uint8Array][] = [
    [skipped, LOG_BYTES.slice(skipped, halfway)],
    [halfway, LOG_BYTES.slice(halfway)],
  ];
  return pieces
    .filter(([, data]) => data.length > 0)
    .map(([offset, data]) => ({ stream: LogChunk_Stream.STDOUT, offset: BigInt(offset), data, attempt }));
}
