import { type Client, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { AgentService } from '@harrier/shared/gen/agent';
import { ExecutionService } from '@harrier/shared/gen/execution';
import { ModuleService } from '@harrier/shared/gen/module';
import { ScheduleService } from '@harrier/shared/gen/schedule';
import { WorkflowService } from '@harrier/shared/gen/workflow';
import { describeCallError } from './call-error.ts';
import { type ConnectionFlags, readConnection } from './connection.ts';

export interface Clients {
  executions: Client<typeof ExecutionService>;
  modules: Client<typeof ModuleService>;
  agents: Client<typeof AgentService>;
  workflows: Client<typeof WorkflowService>;
  schedules: Client<typeof ScheduleService>;
}

/** Runs an action with clients of the control plane; errors of its calls come out as messages for people. */
export async function withClients<T>(flags: ConnectionFlags, action: (clients: Clients) => Promise<T>): Promise<T> {
  const connection = await readConnection(flags);
  const authorize: Interceptor = (next) => (request) => {
    request.header.set('Authorization', `Bearer ${connection.key}`);
    return next(request);
  };
  const transport = createConnectTransport({
    baseUrl: connection.url,
    // Understood by every proxy, and one command makes few calls.
    httpVersion: '1.1',
    interceptors: [authorize],
  });
  try {
    return await action({
      executions: createClient(ExecutionService, transport),
      modules: createClient(ModuleService, transport),
      agents: createClient(AgentService, transport),
      workflows: createClient(WorkflowService, transport),
      schedules: createClient(ScheduleService, transport),
    });
  } catch (error) {
    throw describeCallError(error, connection);
  }
}
