import type { ServiceImpl } from '@connectrpc/connect';
import type { ScheduleService as ScheduleServiceDescriptor } from '@harrier/shared/gen/schedule';
import type { ScheduleService } from '../service/schedule-service.ts';
import { callerOf } from './interceptors/principal.ts';

/** `ScheduleService` of the schema, over the service. */
export function createScheduleApi(schedules: ScheduleService): ServiceImpl<typeof ScheduleServiceDescriptor> {
  return {
    async createSchedule({ schedule }, context) {
      // The schema's rules require it.
      if (schedule === undefined) return {};
      return { schedule: await schedules.create(callerOf(context).tenantId, schedule) };
    },
    async getSchedule({ name, nextCount }, context) {
      return { schedule: await schedules.get(callerOf(context).tenantId, name, nextCount) };
    },
    async listSchedules(request, context) {
      return await schedules.list(callerOf(context).tenantId, request);
    },
    async updateSchedule({ name, schedule }, context) {
      if (schedule === undefined) return {};
      return { schedule: await schedules.update(callerOf(context).tenantId, name, schedule) };
    },
    async deleteSchedule({ name }, context) {
      await schedules.delete(callerOf(context).tenantId, name);
      return {};
    },
    async pauseSchedule({ name }, context) {
      return { schedule: await schedules.setPaused(callerOf(context).tenantId, name, true) };
    },
    async resumeSchedule({ name }, context) {
      return { schedule: await schedules.setPaused(callerOf(context).tenantId, name, false) };
    },
    async listScheduleFirings(request, context) {
      return await schedules.listFirings(callerOf(context).tenantId, request);
    },
  };
}
