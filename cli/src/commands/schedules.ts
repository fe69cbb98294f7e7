import { create } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import {
  ListScheduleFiringsResponseSchema,
  ListSchedulesResponseSchema,
  type Schedule,
  ScheduleSchema,
  ScheduleFiring_State as State,
} from '@harrier/shared/gen/schedule';
import { Command, Option } from 'commander';
import { type Clients, withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { formatTime, nameIn } from '../execution/describe.ts';
import { formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { write } from '../output/terminal.ts';
import { describeSchedule, targetText, timesText } from '../schedule/describe-schedule.ts';
import {
  addScheduleOptions,
  addUpdateOptions,
  newSchedule,
  type ScheduleFlags,
  scheduleUpdate,
} from '../schedule/schedule-options.ts';
import { limitOption, readPages } from './listing.ts';

/** Each that is refused means that another one was not: as many at once are a mistake. */
const MOST_UPDATES = 20;
const STATES = Object.keys(State).filter((name) => name !== 'STATE_UNSPECIFIED');

export function createSchedulesCommand(): Command {
  return new Command('schedules')
    .description('Start modules and workflows at their times.')
    .addCommand(createCreate())
    .addCommand(createUpdate())
    .addCommand(createList())
    .addCommand(createGet())
    .addCommand(createFirings())
    .addCommand(createPause())
    .addCommand(createResume())
    .addCommand(createRemove());
}

function createCreate(): Command {
  const command = new Command('create')
    .description('Make a schedule.')
    .argument('<name>', 'name of the schedule')
    .action(async (name: string, flags: ConnectionFlags & ScheduleFlags) => {
      const schedule = await newSchedule(name, flags);
      await change(flags, async ({ schedules }) => await schedules.createSchedule({ schedule }));
    });
  return addConnectionOptions(addScheduleOptions(command));
}

function createUpdate(): Command {
  const command = new Command('update')
    .description('Change what a schedule says; what is not given stays as it is.')
    .argument('<name>', 'name of the schedule')
    .action(async (name: string, flags: ConnectionFlags & ScheduleFlags) => {
      const update = await scheduleUpdate(flags);
      await change(flags, async ({ schedules }) => await updateLatest(schedules, name, update));
    });
  return addConnectionOptions(addUpdateOptions(command));
}

/** Changes a schedule as it is now: when somebody else was faster, it is read again, and that is changed. */
async function updateLatest(
  schedules: Clients['schedules'],
  name: string,
  update: (schedule: Schedule) => Schedule,
): Promise<{ schedule?: Schedule | undefined }> {
  for (let tries = 1; ; tries++) {
    const { schedule } = await schedules.getSchedule({ name });
    if (schedule === undefined) return {};
    try {
      return await schedules.updateSchedule({ name, schedule: update(schedule) });
    } catch (error) {
      if (tries === MOST_UPDATES || ConnectError.from(error).code !== Code.Aborted) throw error;
    }
  }
}

function createList(): Command {
  const command = new Command('ls')
    .description('List schedules with their next time.')
    .addOption(limitOption(100))
    .action(async (flags: ConnectionFlags & { limit: number }) => {
      const found = await withClients(flags, async ({ schedules }) => {
        return await readPages(flags.limit, async (page) => {
          const { schedules: items, nextPageToken } = await schedules.listSchedules(page);
          return { items, nextPageToken };
        });
      });
      if (flags.json === true) {
        await write(
          formatMessage(ListSchedulesResponseSchema, create(ListSchedulesResponseSchema, { schedules: found })),
        );
        return;
      }
      const rows = found.map((schedule) => {
        const next = schedule.paused ? 'paused' : formatTime(schedule.nextTimes[0]) || 'over';
        return [schedule.name, timesText(schedule), targetText(schedule), next];
      });
      await write(formatTable(['NAME', 'TIMES', 'TARGET', 'NEXT'], rows));
    });
  return addConnectionOptions(command);
}

function createGet(): Command {
  const command = new Command('get')
    .description('Show a schedule with its next times.')
    .argument('<name>', 'name of the schedule')
    .addOption(limitOption(5))
    .action(async (name: string, flags: ConnectionFlags & { limit: number }) => {
      await change(flags, async ({ schedules }) => await schedules.getSchedule({ name, nextCount: flags.limit }));
    });
  return addConnectionOptions(command);
}

function createFirings(): Command {
  const command = new Command('firings')
    .description('List what became of the times of a schedule, the latest first.')
    .argument('<name>', 'name of the schedule')
    .addOption(new Option('--state <state>', 'only in this state').choices(STATES))
    .addOption(limitOption(20))
    .action(async (name: string, flags: ConnectionFlags & { limit: number; state?: keyof typeof State }) => {
      const state = State[flags.state ?? 'STATE_UNSPECIFIED'];
      const firings = await withClients(flags, async ({ schedules }) => {
        return await readPages(flags.limit, async (page) => {
          const { firings: items, nextPageToken } = await schedules.listScheduleFirings({ ...page, name, state });
          return { items, nextPageToken };
        });
      });
      if (flags.json === true) {
        await write(
          formatMessage(ListScheduleFiringsResponseSchema, create(ListScheduleFiringsResponseSchema, { firings })),
        );
        return;
      }
      const rows = firings.map((firing) => {
        const since = firing.since === undefined ? '' : `for all since ${formatTime(firing.since)}`;
        const notes = [since, firing.message].filter((note) => note !== '').join('; ');
        const started = firing.executionId || firing.runId;
        return [formatTime(firing.time), nameIn(State, firing.state), formatTime(firing.startTime), started, notes];
      });
      await write(formatTable(['TIME', 'STATE', 'STARTED', 'EXECUTION OR RUN', 'NOTE'], rows));
    });
  return addConnectionOptions(command);
}

function createPause(): Command {
  const command = new Command('pause')
    .description('Let no time fire until it is resumed.')
    .argument('<name>', 'name of the schedule')
    .action(async (name: string, flags: ConnectionFlags) => {
      await change(flags, async ({ schedules }) => await schedules.pauseSchedule({ name }));
    });
  return addConnectionOptions(command);
}

function createResume(): Command {
  const command = new Command('resume')
    .description('Go on with the next time; those within the pause are not missed.')
    .argument('<name>', 'name of the schedule')
    .action(async (name: string, flags: ConnectionFlags) => {
      await change(flags, async ({ schedules }) => await schedules.resumeSchedule({ name }));
    });
  return addConnectionOptions(command);
}

function createRemove(): Command {
  const command = new Command('rm')
    .description('Remove a schedule and the record of its firings; what it has started goes on.')
    .argument('<name>', 'name of the schedule')
    .action(async (name: string, flags: ConnectionFlags) => {
      await withClients(flags, async ({ schedules }) => await schedules.deleteSchedule({ name }));
      await write(flags.json === true ? `${JSON.stringify({ name })}\n` : `${name} is removed\n`);
    });
  return addConnectionOptions(command);
}

/** Makes a call that answers a schedule, and shows it. */
async function change(
  flags: ConnectionFlags,
  call: (clients: Clients) => Promise<{ schedule?: Schedule | undefined }>,
): Promise<void> {
  const { schedule } = await withClients(flags, call);
  if (schedule === undefined) return;
  await write(flags.json === true ? formatMessage(ScheduleSchema, schedule) : describeSchedule(schedule));
}
