import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type Execution, ListExecutionsResponseSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { Command, Option } from 'commander';
import { withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { describeError, formatMs, formatTime, paintState } from '../execution/describe.ts';
import { describeExecution } from '../execution/describe-execution.ts';
import { formatExecution, formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { write } from '../output/terminal.ts';
import { limitOption, parseAge, readPages } from './listing.ts';

interface ListFlags extends ConnectionFlags {
  state?: keyof typeof State;
  module?: string;
  selector?: string;
  since?: Date;
  until?: Date;
  limit: number;
}

const STATES = Object.keys(State).filter((name) => name !== 'STATE_UNSPECIFIED');

export function createExecutionsCommand(): Command {
  return new Command('executions')
    .description('List, show and cancel executions.')
    .addCommand(createList())
    .addCommand(createGet())
    .addCommand(createCancel());
}

function createList(): Command {
  const command = new Command('ls')
    .description('List executions, newest first.')
    .addOption(new Option('--state <state>', 'only in this state').choices(STATES))
    .option('--module <name>', 'only of this module')
    .option('--selector <labels>', 'only with these labels, for example "team=vision, run in (a, b)"')
    .option('--since <age>', 'only those accepted since then, for example 15m or 2d', parseAge)
    .option('--until <age>', 'only those accepted before then, for example 1h', parseAge)
    .addOption(limitOption(20))
    .action(async (flags: ListFlags) => {
      const executions = await withClients(flags, async (clients) => await list(clients.executions, flags));
      if (flags.json === true) {
        await write(formatMessage(ListExecutionsResponseSchema, create(ListExecutionsResponseSchema, { executions })));
      } else {
        const heading = ['ID', 'STATE', 'MODULE', 'VERSION', 'ATTEMPT', 'ACCEPTED', 'TOOK', 'ERROR'];
        await write(formatTable(heading, executions.map(rowOf)));
      }
    });
  return addConnectionOptions(command);
}

type Client = Parameters<Parameters<typeof withClients>[1]>[0]['executions'];

async function list(client: Client, flags: ListFlags): Promise<Execution[]> {
  return await readPages(flags.limit, async (page) => {
    const { executions, nextPageToken } = await client.listExecutions({
      ...page,
      state: State[flags.state ?? 'STATE_UNSPECIFIED'],
      module: flags.module ?? '',
      labelSelector: flags.selector ?? '',
      ...(flags.since === undefined ? {} : { createTimeFrom: timestampFromDate(flags.since) }),
      ...(flags.until === undefined ? {} : { createTimeTo: timestampFromDate(flags.until) }),
    });
    return { items: executions, nextPageToken };
  });
}

function rowOf(execution: Execution): string[] {
  const { id, state, module, version, attempt, createTime, endTime, durationMs, error } = execution;
  return [
    id,
    paintState(state),
    module || '-',
    version || '-',
    String(attempt),
    formatTime(createTime),
    endTime === undefined ? '-' : formatMs(durationMs),
    error === undefined ? '' : (describeError(error).split('\n')[0] ?? ''),
  ];
}

function createGet(): Command {
  const command = new Command('get')
    .description('Show an execution with its input, output and attempts.')
    .argument('<id>', 'id of the execution')
    .action(async (id: string, flags: ConnectionFlags) => {
      await withClients(flags, async ({ executions }) => {
        await show((await executions.getExecution({ id, includeInput: true })).execution, flags);
      });
    });
  return addConnectionOptions(command);
}

function createCancel(): Command {
  const command = new Command('cancel')
    .description('Cancel executions. One that waits ends at once, one that runs is asked to stop.')
    .argument('<id...>', 'ids of the executions')
    .option('--reason <text>', 'for people; becomes the message of the error')
    .action(async (ids: string[], flags: ConnectionFlags & { reason?: string }) => {
      await withClients(flags, async ({ executions }) => {
        for (const id of ids) {
          const { execution } = await executions.cancelExecution({ id, reason: flags.reason ?? '' });
          if (execution === undefined) continue;
          if (flags.json === true) await write(formatExecution(execution));
          else await write(`${id} ${execution.cancelRequested ? 'is being cancelled' : paintState(execution.state)}\n`);
        }
      });
    });
  return addConnectionOptions(command);
}

async function show(execution: Execution | undefined, flags: ConnectionFlags): Promise<void> {
  if (execution === undefined) return;
  await write(flags.json === true ? formatExecution(execution) : describeExecution(execution));
}
