import { create } from '@bufbuild/protobuf';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { ExecuteRequestSchema } from '@harrier/shared/gen/execution';
import {
  Schedule_Misfire_Policy as Misfire,
  Schedule_Overlap_Policy as Overlap,
  type Schedule,
  ScheduleSchema,
} from '@harrier/shared/gen/schedule';
import type { ScheduleAnswer } from '../evidence.ts';
import type { SchedulePlan } from '../schedule-plan.ts';
import type { CallerOptions } from './caller.ts';
import { untilAnswered } from './persistent-call.ts';
import { jobInput, type Surroundings, whatToRun } from './request.ts';

/** Between the last call for a schedule and the moment from which on it has no times: they are told before they come. */
const NOTICE_MS = 500;

/** Makes schedules, and gives them an end; it asks again until it is answered. */
export class ScheduleCaller {
  readonly #options: CallerOptions;

  constructor(options: CallerOptions) {
    this.#options = options;
  }

  /** @returns undefined when the signal came first */
  async make(plan: SchedulePlan, signal: AbortSignal): Promise<ScheduleAnswer | undefined> {
    const { clients, ...surroundings } = this.#options;
    const startMs = Date.now() + NOTICE_MS;
    const schedule = scheduleOf(plan, startMs, surroundings);
    return await this.#try(plan, signal, async () => {
      if (plan.job === undefined) {
        const workflow = { name: plan.key, version: '1.0.0', nodes: [RESULT] };
        await untilAnswered(clients, signal, ({ workflows }, options) =>
          workflows.createWorkflow({ workflow }, options),
        );
      }
      await untilAnswered(clients, signal, ({ schedules }, options) =>
        schedules.createSchedule({ schedule }, options).catch((error: unknown) => {
          // By a try that nobody answered.
          if (ConnectError.from(error).code !== Code.AlreadyExists) throw error;
        }),
      );
      return { startMs, untilMs: undefined };
    });
  }

  /** Gives it an end soon, and notes it when that was answered. */
  async end(plan: SchedulePlan, answer: ScheduleAnswer, signal: AbortSignal): Promise<void> {
    const { clients, ...surroundings } = this.#options;
    const untilMs = Math.max(Date.now() + NOTICE_MS, answer.startMs + plan.leastMs);
    const schedule = scheduleOf(plan, answer.startMs, surroundings);
    schedule.endTime = timestampFromMs(untilMs);
    await this.#try(plan, signal, async () => {
      await untilAnswered(clients, signal, ({ schedules }, options) =>
        schedules.updateSchedule({ name: plan.key, schedule }, options),
      );
      answer.untilMs = untilMs;
    });
  }

  async #try<T>({ key }: SchedulePlan, signal: AbortSignal, call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      if (signal.aborted) return undefined;
      throw new Error(`${key} was refused: ${String(error)}`, { cause: error });
    }
  }
}

const RESULT = { id: 'result', kind: { case: 'transform' as const, value: { expression: 'input' } } };

/** The same for every call, but for its end. */
function scheduleOf(plan: SchedulePlan, startMs: number, surroundings: Surroundings): Schedule {
  const { key, times, everyMs, job, misfire, graceMs, overlap, maxQueued, jitterMs } = plan;
  return create(ScheduleSchema, {
    name: key,
    times:
      times === 'interval'
        ? { case: 'interval', value: durationFromMs(everyMs) }
        : { case: 'cron', value: { expression: `*/${everyMs / 1000} * * * * *` } },
    target:
      job === undefined
        ? { case: 'workflow', value: { name: key } }
        : {
            case: 'run',
            value: create(ExecuteRequestSchema, {
              ...whatToRun(job, surroundings),
              inputForm: { case: 'inputJson', value: JSON.stringify(jobInput(job, surroundings)) },
            } as Parameters<typeof create<typeof ExecuteRequestSchema>>[1]),
          },
    misfire: { policy: Misfire[upper(misfire)], grace: durationFromMs(graceMs), max: 1_000 },
    overlap: { policy: Overlap[upper(overlap)], maxQueued },
    jitter: durationFromMs(jitterMs),
    startTime: timestampFromMs(startMs),
  });
}

function upper<Text extends string>(text: Text): Uppercase<Text> {
  return text.toUpperCase() as Uppercase<Text>;
}
