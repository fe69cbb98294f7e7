import type { ServiceImpl } from '@connectrpc/connect';
import { HarrierError } from '@harrier/shared';
import {
  type ModuleService as ModuleServiceDescriptor,
  Module_Source as ModuleSource,
} from '@harrier/shared/gen/module';
import type { ModuleService } from '../service/module-service.ts';
import type { ModuleValidation } from '../service/module-validation.ts';
import { callerOf } from './interceptors/principal.ts';

/** `ModuleService` of the schema, over the service. */
export function createModuleApi(
  modules: ModuleService,
  validation: ModuleValidation,
): ServiceImpl<typeof ModuleServiceDescriptor> {
  return {
    async createModule(request, context) {
      if (request.module === undefined) {
        throw new HarrierError('invalid_argument', 'module is required', { field: 'module' });
      }
      return { module: await modules.create(callerOf(context).tenantId, request.module, ModuleSource.API) };
    },
    async validateModule(request, context) {
      if (request.module === undefined) {
        throw new HarrierError('invalid_argument', 'module is required', { field: 'module' });
      }
      return await validation.validate(callerOf(context).tenantId, request.module, context.signal);
    },
    async getModule(request, context) {
      return { module: await modules.get(callerOf(context).tenantId, request.name, request.version) };
    },
    async listModules(request, context) {
      return await modules.list(callerOf(context).tenantId, request);
    },
    async listModuleVersions(request, context) {
      const { name, pageSize, pageToken } = request;
      return await modules.listVersions(callerOf(context).tenantId, name, pageSize, pageToken);
    },
    async deleteModule(request, context) {
      return { deletedVersions: await modules.delete(callerOf(context).tenantId, request.name, request.version) };
    },
  };
}
