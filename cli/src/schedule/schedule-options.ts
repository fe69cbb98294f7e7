import { clone, create } from '@bufbuild/protobuf';
import { type Duration, durationFromMs, type Timestamp, timestampFromDate } from '@bufbuild/protobuf/wkt';
import { parseDurationMs } from '@harrier/shared';
import { ExecuteRequestSchema } from '@harrier/shared/gen/execution';
import {
  Schedule_Misfire_Policy as Misfire,
  Schedule_Overlap_Policy as Overlap,
  type Schedule,
  Schedule_CronSchema,
  Schedule_MisfireSchema,
  Schedule_OverlapSchema,
  ScheduleSchema,
} from '@harrier/shared/gen/schedule';
import { RunWorkflowRequestSchema } from '@harrier/shared/gen/workflow';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseInteger, readInput } from '../execution/request-options.ts';
import { CliError } from '../failure.ts';

const ONE_OF_TIMES = 'give one of --cron, --every and --at';
const ONE_OF_TARGETS = 'give one of --module and --workflow';

/** What `schedules create` and `schedules update` say of a schedule. */
export interface ScheduleFlags {
  description?: string;
  cron?: string;
  timeZone?: string;
  every?: Duration;
  at?: Timestamp;
  module?: string;
  workflow?: string;
  version?: string;
  input?: string;
  misfire?: 'skip' | 'once' | 'all';
  grace?: Duration;
  maxMissed?: number;
  overlap?: 'allow' | 'skip' | 'queue' | 'cancel';
  maxQueued?: number;
  jitter?: Duration;
  /** False: none any more. */
  start?: Timestamp | false;
  end?: Timestamp | false;
  paused?: boolean;
}

export function addScheduleOptions(command: Command): Command {
  return command
    .option('--cron <expression>', 'five fields, or six with seconds first, or @daily and the like')
    .option('--time-zone <name>', 'time zone of the expression, for example Europe/Berlin (default UTC)')
    .option('--every <duration>', 'so long after one another, for example 30s or 6h', parseDuration)
    .option('--at <time>', 'once, for example 2030-01-31T08:00:00Z', parseTime)
    .option('--module <name>', 'module to run')
    .option('--workflow <name>', 'workflow to run')
    .option('--version <version>', 'version of the module or workflow (default the latest at each time)')
    .option('-i, --input <json>', 'input: a JSON object, @FILE, or - for standard input (default {})')
    .addOption(
      new Option('--misfire <policy>', 'what happens to times that nobody was there for (default once)').choices([
        'skip',
        'once',
        'all',
      ]),
    )
    .option('--grace <duration>', 'a time that is noticed later is missed (default 60s)', parseDuration)
    .option('--max-missed <number>', 'with --misfire all: missed times that fire (default 100)', parseInteger)
    .addOption(
      new Option('--overlap <policy>', 'what happens while the one before goes on (default allow)').choices([
        'allow',
        'skip',
        'queue',
        'cancel',
      ]),
    )
    .option('--max-queued <number>', 'with --overlap queue: times that wait (default 100)', parseInteger)
    .option('--jitter <duration>', 'put each time off by up to so long', parseDuration)
    .option('--start <time>', 'no time before it', parseTime)
    .option('--end <time>', 'no time from it on', parseTime)
    .option('--description <text>', 'for people')
    .option('--paused', 'lets no time fire until it is resumed');
}

/** As `addScheduleOptions`, and what takes something away. */
export function addUpdateOptions(command: Command): Command {
  return addScheduleOptions(command)
    .option('--no-start', 'times may be as early as they are')
    .option('--no-end', 'times have no end');
}

/** A new schedule. @throws CliError for flags that do not go together, or an input that cannot be read */
export async function newSchedule(name: string, flags: ScheduleFlags): Promise<Schedule> {
  const schedule = create(ScheduleSchema, { name, paused: flags.paused ?? false });
  changeSchedule(schedule, await readGiven(flags));
  if (schedule.times.case === undefined) throw new CliError(ONE_OF_TIMES);
  if (schedule.target.case === undefined) throw new CliError(ONE_OF_TARGETS);
  return schedule;
}

/**
 * What existing schedules say from now on: what no flag names stays. `paused` is not set unless it was given, so that it stays
 * too. Any number of schedules can be changed: the input is read once.
 * @throws CliError as `newSchedule`, also when a schedule is changed
 */
export async function scheduleUpdate(flags: ScheduleFlags): Promise<(schedule: Schedule) => Schedule> {
  const given = await readGiven(flags);
  return (schedule) => {
    const updated = clone(ScheduleSchema, schedule);
    changeSchedule(updated, given);
    if (flags.paused === undefined) delete updated.paused;
    else updated.paused = flags.paused;
    return updated;
  };
}

/** The input as JSON in place of what says where it is. */
async function readGiven(flags: ScheduleFlags): Promise<ScheduleFlags> {
  return flags.input === undefined ? flags : { ...flags, input: await readInput(flags.input) };
}

function changeSchedule(schedule: Schedule, flags: ScheduleFlags): void {
  schedule.description = flags.description ?? schedule.description;
  changeTimes(schedule, flags);
  changeTarget(schedule, flags);
  const misfire = schedule.misfire ?? create(Schedule_MisfireSchema);
  if (flags.misfire !== undefined) misfire.policy = Misfire[upper(flags.misfire)];
  if (flags.grace !== undefined) misfire.grace = flags.grace;
  misfire.max = flags.maxMissed ?? misfire.max;
  schedule.misfire = misfire;
  const overlap = schedule.overlap ?? create(Schedule_OverlapSchema);
  if (flags.overlap !== undefined) overlap.policy = Overlap[upper(flags.overlap)];
  overlap.maxQueued = flags.maxQueued ?? overlap.maxQueued;
  schedule.overlap = overlap;
  if (flags.jitter !== undefined) schedule.jitter = flags.jitter;
  if (flags.start === false) delete schedule.startTime;
  else if (flags.start !== undefined) schedule.startTime = flags.start;
  if (flags.end === false) delete schedule.endTime;
  else if (flags.end !== undefined) schedule.endTime = flags.end;
}

/** An expression without a time zone is in that of the one before. */
function changeTimes(schedule: Schedule, { cron, timeZone, every, at }: ScheduleFlags): void {
  if ([cron, every, at].filter((given) => given !== undefined).length > 1) throw new CliError(ONE_OF_TIMES);
  if (every !== undefined) schedule.times = { case: 'interval', value: every };
  if (at !== undefined) schedule.times = { case: 'once', value: at };
  if (cron !== undefined) {
    const zone = schedule.times.case === 'cron' ? schedule.times.value.timeZone : '';
    schedule.times = { case: 'cron', value: create(Schedule_CronSchema, { expression: cron, timeZone: zone }) };
  }
  if (timeZone === undefined) return;
  if (schedule.times.case !== 'cron') throw new CliError('--time-zone goes with --cron');
  schedule.times.value.timeZone = timeZone;
}

/**
 * A module or workflow that is named comes with its own version and input; else those of the target are changed. What else the
 * target says stays, unless an execution takes the place of a run of a workflow or the other way round.
 */
function changeTarget(schedule: Schedule, { module, workflow, version, input }: ScheduleFlags): void {
  if (module !== undefined && workflow !== undefined) throw new CliError(ONE_OF_TARGETS);
  const isNamed = module !== undefined || workflow !== undefined;
  const before = schedule.target;
  if (module !== undefined) {
    const value = before.case === 'run' ? before.value : create(ExecuteRequestSchema);
    value.target = { case: 'module', value: module };
    schedule.target = { case: 'run', value };
  }
  if (workflow !== undefined) {
    const value = before.case === 'workflow' ? before.value : create(RunWorkflowRequestSchema);
    value.name = workflow;
    schedule.target = { case: 'workflow', value };
  }
  const { value } = schedule.target;
  if (value === undefined) return;
  value.version = version ?? (isNamed ? '' : value.version);
  if (isNamed || input !== undefined) value.inputForm = { case: 'inputJson', value: input ?? '{}' };
}

function parseDuration(text: string): Duration {
  const ms = parseDurationMs(text);
  if (ms === undefined) throw new InvalidArgumentError('Write a duration like 500ms, 90s, 5m or 2h.');
  return durationFromMs(ms);
}

function parseTime(text: string): Timestamp {
  // A time without a zone would be another one on another machine.
  const isWhole = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text);
  if (!isWhole || Number.isNaN(Date.parse(text))) {
    throw new InvalidArgumentError(
      'Write a time with its zone, like 2030-01-31T08:00:00Z or 2030-01-31T09:00:00+01:00.',
    );
  }
  return timestampFromDate(new Date(text));
}

function upper<Text extends string>(text: Text): Uppercase<Text> {
  return text.toUpperCase() as Uppercase<Text>;
}
