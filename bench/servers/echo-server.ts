import { createApiHandler } from '../../control-plane/src/api/api-handler.ts';
import { createListener } from '../../control-plane/src/api/listener/listener.ts';
import { Access_Role } from '../../shared/src/gen/harrier/v1/options_pb.ts';
import { createLogger } from '../../shared/src/index.ts';

// The listener and handler of the control plane with an Execute that answers its own input: what a call costs before
// anything is run.

const refuse = () => {
  throw new Error('only Execute is served here');
};
const logger = createLogger({ name: 'echo', level: 'warn' });
const handler = createApiHandler({
  services: {
    execution: {
      execute: (request) => ({
        execution: { outputJson: request.inputForm.case === 'inputJson' ? request.inputForm.value : '' },
      }),
      executeStream: refuse,
      createExecution: refuse,
      getExecution: refuse,
      listExecutions: refuse,
      cancelExecution: refuse,
      watchExecution: refuse,
      readLogs: refuse,
    },
    module: {
      createModule: refuse,
      validateModule: refuse,
      getModule: refuse,
      listModules: refuse,
      listModuleVersions: refuse,
      deleteModule: refuse,
    },
    workflow: {
      createWorkflow: refuse,
      getWorkflow: refuse,
      listWorkflows: refuse,
      deleteWorkflow: refuse,
      runWorkflow: refuse,
      getWorkflowRun: refuse,
      listWorkflowRuns: refuse,
      watchWorkflowRun: refuse,
      cancelWorkflowRun: refuse,
      signalWorkflowRun: refuse,
      retryWorkflowRun: refuse,
    },
    schedule: {
      createSchedule: refuse,
      getSchedule: refuse,
      listSchedules: refuse,
      updateSchedule: refuse,
      deleteSchedule: refuse,
      pauseSchedule: refuse,
      resumeSchedule: refuse,
      listScheduleFirings: refuse,
    },
    agent: {
      listAgents: refuse,
      getAgent: refuse,
      drainAgent: refuse,
      resumeAgent: refuse,
      deleteAgent: refuse,
      createJoinToken: refuse,
      clearGpu: refuse,
    },
  },
  authenticate: async () => ({ tenantId: 'bench', role: Access_Role.ADMIN, keyId: 'bench' }),
  observe: () => undefined,
  ready: async () => true,
  logger,
});
const { address, port } = await createListener({ host: '127.0.0.1', port: 0, handler, logger }).listen();
process.stdout.write(`http://${address}:${port}\n`);
