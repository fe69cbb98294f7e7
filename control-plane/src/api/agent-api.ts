import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import type { AgentService as AgentServiceDescriptor } from '@harrier/shared/gen/agent';
import type { AgentService } from '../service/agent-service.ts';
import { millisecondsOf } from '../service/duration.ts';
import { callerOf } from './interceptors/principal.ts';

const DEFAULT_JOIN_TOKEN_TTL_MS = 3_600_000;

/** `AgentService` of the schema, over the service. */
export function createAgentApi(agents: AgentService): ServiceImpl<typeof AgentServiceDescriptor> {
  return {
    async listAgents(request, context) {
      return await agents.list(callerOf(context).tenantId, request);
    },
    async getAgent(request, context) {
      return { agent: await agents.get(callerOf(context).tenantId, request.id) };
    },
    async drainAgent(request, context) {
      return { agent: await agents.setDraining(callerOf(context).tenantId, request.id, true) };
    },
    async resumeAgent(request, context) {
      return { agent: await agents.setDraining(callerOf(context).tenantId, request.id, false) };
    },
    async deleteAgent(request, context) {
      await agents.delete(callerOf(context).tenantId, request.id);
      return {};
    },
    async clearGpu({ id, gpuUuid }, context) {
      return { gpu: await agents.clearGpu(callerOf(context).tenantId, id, gpuUuid, context.signal) };
    },
    async createJoinToken(request, context) {
      const ttlMs = request.ttl === undefined ? DEFAULT_JOIN_TOKEN_TTL_MS : millisecondsOf(request.ttl);
      const { token, expireTime } = await agents.createJoinToken(callerOf(context).tenantId, ttlMs);
      return { token, expireTime: timestampFromDate(expireTime) };
    },
  };
}
