import { clone, equals, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { HarrierError } from '@harrier/shared';
import {
  ScheduleFiring_State as FiringState,
  type ListScheduleFiringsRequest,
  type ListSchedulesRequest,
  type Schedule,
  type ScheduleFiring,
  ScheduleSchema,
} from '@harrier/shared/gen/schedule';
import { listFirings } from '../db/queries/schedule-firings.ts';
import {
  changeSchedule,
  databaseTimeMs,
  deleteSchedule,
  insertSchedule,
  listSchedules,
  readSchedule,
  type ScheduleContent,
  type ScheduleRow,
} from '../db/queries/schedules.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { dueMs } from '../schedule/decide.ts';
import { planOf } from '../schedule/plan.ts';
import type { ExecutionService } from './execution-service.ts';
import { decodePageToken, encodePageToken, pageSizeOf, TEXT_SHAPE } from './page-token.ts';
import { checkSize, checkTimes, noTimes, targetError, wrong } from './schedule-check.ts';
import { firingMessage, scheduleMessage } from './schedule-message.ts';
import { optionalText } from './semantic-versions.ts';
import { refuseNul } from './storable.ts';
import type { WorkflowService } from './workflow-service.ts';

const DEFAULT_NEXT_TIMES = 5;
const TIME_SHAPE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

export interface ScheduleServiceOptions {
  sql: Sql;
  executions: Pick<ExecutionService, 'check'>;
  workflows: Pick<WorkflowService, 'checkRun'>;
  /** Schedules that a tenant may have. */
  maxOfTenant: number;
  /** What is due next may be another time than before, at every replica. */
  onChanged: () => void;
}

/** The schedules of tenants, and what became of their times. */
export class ScheduleService {
  readonly #options: ScheduleServiceOptions;

  constructor(options: ScheduleServiceOptions) {
    this.#options = options;
  }

  /** @throws HarrierError invalid_argument with the field's path, already_exists, resource_exhausted */
  async create(tenantId: string, schedule: Schedule): Promise<Schedule> {
    const { sql, maxOfTenant, onChanged } = this.#options;
    await this.#check(tenantId, schedule);
    const id = uuidv7();
    const content = contentOf(id, schedule, await databaseTimeMs(sql));
    const row = await insertSchedule(sql, { id, tenantId, name: schedule.name, maxOfTenant, ...content });
    if (row === 'full') {
      throw new HarrierError(
        'resource_exhausted',
        `the tenant has ${maxOfTenant} schedules, which is as many as it may have; delete one that is not needed`,
      );
    }
    if (row === undefined) {
      throw new HarrierError(
        'already_exists',
        `there is a schedule "${schedule.name}"; update it, or delete it first`,
        {
          field: 'schedule.name',
        },
      );
    }
    onChanged();
    return scheduleMessage(row, DEFAULT_NEXT_TIMES);
  }

  /** @throws HarrierError not_found */
  async get(tenantId: string, name: string, nextCount: number): Promise<Schedule> {
    return scheduleMessage(await this.#find(tenantId, name), nextCount === 0 ? DEFAULT_NEXT_TIMES : nextCount);
  }

  async list(
    tenantId: string,
    request: ListSchedulesRequest,
  ): Promise<{ schedules: Schedule[]; nextPageToken: string }> {
    const limit = pageSizeOf(request.pageSize);
    const rows = await listSchedules(this.#options.sql, {
      tenantId,
      limit: limit + 1,
      after: decodePageToken(request.pageToken, [TEXT_SHAPE])?.[0],
      namePrefix: optionalText(request.namePrefix, 'name_prefix'),
    });
    const page = rows.slice(0, limit);
    const last = rows.length > limit ? page.at(-1) : undefined;
    return {
      schedules: page.map((row) => scheduleMessage(row, 1)),
      nextPageToken: last === undefined ? '' : encodePageToken(last.name),
    };
  }

  /**
   * @param schedule with the `update_time` that it was read with: only if it has not been changed since
   * @throws HarrierError invalid_argument with the field's path, not_found, aborted
   */
  async update(tenantId: string, name: string, schedule: Schedule): Promise<Schedule> {
    if (schedule.name !== name) throw wrong('schedule.name', `it must be "${name}"; a schedule keeps its name`);
    await this.#check(tenantId, schedule);
    return await this.#change(tenantId, name, (before, nowMs) => {
      refuseStale(schedule, before);
      return { ...contentOf(before.id, schedule, nowMs, before), event: 'schedule.updated' };
    });
  }

  /** @throws HarrierError not_found */
  async delete(tenantId: string, name: string): Promise<void> {
    refuseNul('name', name);
    if (!(await deleteSchedule(this.#options.sql, tenantId, name))) throw notFound(name);
  }

  /** @throws HarrierError not_found */
  async setPaused(tenantId: string, name: string, paused: boolean): Promise<Schedule> {
    return await this.#change(tenantId, name, (before, nowMs) => {
      if (before.paused === paused) return undefined;
      const schedule = fromBinary(ScheduleSchema, before.definition);
      schedule.paused = paused;
      return {
        ...contentOf(before.id, schedule, nowMs, before),
        event: paused ? 'schedule.paused' : 'schedule.resumed',
      };
    });
  }

  /** @throws HarrierError not_found, invalid_argument */
  async listFirings(
    tenantId: string,
    request: ListScheduleFiringsRequest,
  ): Promise<{ firings: ScheduleFiring[]; nextPageToken: string }> {
    const limit = pageSizeOf(request.pageSize);
    const before = decodePageToken(request.pageToken, [TIME_SHAPE])?.[0];
    const { id: scheduleId } = await this.#find(tenantId, request.name);
    const rows = await listFirings(this.#options.sql, {
      tenantId,
      scheduleId,
      limit: limit + 1,
      before: before === undefined ? undefined : new Date(before),
      state: request.state === FiringState.STATE_UNSPECIFIED ? undefined : request.state,
    });
    const page = rows.slice(0, limit);
    const last = rows.length > limit ? page.at(-1) : undefined;
    return {
      firings: page.map(firingMessage),
      nextPageToken: last === undefined ? '' : encodePageToken(last.time.toISOString()),
    };
  }

  async #change(tenantId: string, name: string, change: Parameters<typeof changeSchedule>[2]): Promise<Schedule> {
    refuseNul('name', name);
    const row = await changeSchedule(this.#options.sql, { tenantId, name }, change);
    if (row === undefined) throw notFound(name);
    this.#options.onChanged();
    return scheduleMessage(row, DEFAULT_NEXT_TIMES);
  }

  async #find(tenantId: string, name: string): Promise<ScheduleRow> {
    refuseNul('name', name);
    const row = await readSchedule(this.#options.sql, tenantId, name);
    if (row === undefined) throw notFound(name);
    return row;
  }

  /** @throws HarrierError invalid_argument with the field's path */
  async #check(tenantId: string, schedule: Schedule): Promise<void> {
    checkSize(schedule);
    checkTimes(schedule);
    const { target } = schedule;
    if (target.case === undefined) throw wrong('schedule', 'it needs run or workflow');
    const field = `schedule.${target.case}`;
    if (target.value.idempotencyKey !== '') {
      throw wrong(`${field}.idempotency_key`, 'each time of the schedule has a key of its own; leave it out');
    }
    try {
      if (target.case === 'run') await this.#options.executions.check(tenantId, target.value);
      else await this.#options.workflows.checkRun(tenantId, target.value);
    } catch (error) {
      throw targetError(error, field);
    }
  }
}

/**
 * What is stored of a schedule. Times that it had before and that are not decided yet stay to be decided, unless it was paused or
 * over, or has other times now.
 * @throws HarrierError invalid_argument when its times are new and none of them is to come
 */
function contentOf(id: string, schedule: Schedule, nowMs: number, before?: ScheduleRow): ScheduleContent {
  const definition = clone(ScheduleSchema, schedule);
  definition.id = '';
  delete definition.paused;
  definition.nextTimes = [];
  delete definition.createTime;
  delete definition.updateTime;
  const old = before === undefined ? undefined : fromBinary(ScheduleSchema, before.definition);
  const isSame = before !== undefined && old !== undefined && hasTimesOf(definition, old);
  const paused = schedule.paused ?? before?.paused ?? false;
  const isResumed = before?.paused === true && !paused;
  const anchorMs = isSame ? before.anchor_time.getTime() : nowMs;
  const decidedBeforeMs = before?.decided_time.getTime() ?? 0;
  // What was behind its end was none of its times, and was not missed.
  const isReopened = old !== undefined && hasEnded(old, nowMs) && !hasEnded(definition, nowMs);
  const decidedMs = isSame && !isResumed && !isReopened ? decidedBeforeMs : Math.max(decidedBeforeMs, nowMs);
  const plan = planOf(id, definition, anchorMs);
  const nextMs = plan.times.after(decidedMs);
  if (nextMs === undefined && !isSame) throw noTimes(schedule, nowMs);
  return {
    definition: toBinary(ScheduleSchema, definition),
    paused,
    anchorTime: new Date(anchorMs),
    decidedTime: new Date(decidedMs),
    nextDueTime: nextMs === undefined ? undefined : new Date(dueMs(plan, nextMs)),
    // Of two changes in one millisecond the second is another one too.
    updateTime: new Date(Math.max(nowMs, (before?.update_time.getTime() ?? 0) + 1)),
  };
}

/** @throws HarrierError aborted when somebody has changed what the caller has read */
function refuseStale({ name, updateTime }: Schedule, before: ScheduleRow): void {
  if (updateTime === undefined || timestampMs(updateTime) === before.update_time.getTime()) return;
  const read = new Date(timestampMs(updateTime)).toISOString();
  throw new HarrierError(
    'aborted',
    `the schedule "${name}" was changed at ${before.update_time.toISOString()}, and the change is one of what it was at ${read}; read it again, and change that`,
    { field: 'schedule.update_time' },
  );
}

function hasEnded({ endTime }: Schedule, nowMs: number): boolean {
  return endTime !== undefined && timestampMs(endTime) <= nowMs;
}

function hasTimesOf(schedule: Schedule, other: Schedule): boolean {
  const probe = clone(ScheduleSchema, other);
  probe.times = schedule.times;
  if (schedule.startTime === undefined) delete probe.startTime;
  else probe.startTime = schedule.startTime;
  return equals(ScheduleSchema, probe, other);
}

function notFound(name: string): HarrierError {
  return new HarrierError('not_found', `there is no schedule "${name}"`, { field: 'name' });
}
