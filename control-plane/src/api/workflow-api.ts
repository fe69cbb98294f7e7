import type { ServiceImpl } from '@connectrpc/connect';
import type { WorkflowService as WorkflowServiceDescriptor } from '@harrier/shared/gen/workflow';
import type { WorkflowService } from '../service/workflow-service.ts';
import type { WorkflowWatcher } from '../service/workflow-watcher.ts';
import { callerOf } from './interceptors/principal.ts';

/** `WorkflowService` of the schema, over the service. */
export function createWorkflowApi(
  workflows: WorkflowService,
  watcher: WorkflowWatcher,
): ServiceImpl<typeof WorkflowServiceDescriptor> {
  return {
    async createWorkflow({ workflow }, context) {
      // The schema's rules require it.
      if (workflow === undefined) return {};
      return await workflows.create(callerOf(context).tenantId, workflow);
    },
    async getWorkflow({ name, version }, context) {
      return { workflow: await workflows.get(callerOf(context).tenantId, name, version) };
    },
    async listWorkflows(request, context) {
      return await workflows.list(callerOf(context).tenantId, request);
    },
    async deleteWorkflow({ name, version }, context) {
      return { deletedVersions: await workflows.delete(callerOf(context).tenantId, name, version) };
    },
    async runWorkflow(request, context) {
      return { run: await workflows.run(callerOf(context).tenantId, request) };
    },
    async getWorkflowRun({ id, includeOutputs, outputPaths }, context) {
      const outputs = includeOutputs ? outputPaths : undefined;
      return { run: await workflows.getRun(callerOf(context).tenantId, id, outputs) };
    },
    async listWorkflowRuns(request, context) {
      return await workflows.listRuns(callerOf(context).tenantId, request);
    },
    watchWorkflowRun(request, context) {
      return watcher.watch(callerOf(context).tenantId, request, context.signal);
    },
    async cancelWorkflowRun({ id, reason }, context) {
      return { run: await workflows.cancel(callerOf(context).tenantId, id, reason) };
    },
    async signalWorkflowRun({ id, path, payloadJson }, context) {
      return { run: await workflows.signal(callerOf(context).tenantId, id, path, payloadJson) };
    },
    async retryWorkflowRun({ id }, context) {
      return { run: await workflows.retry(callerOf(context).tenantId, id) };
    },
  };
}
