import { readFile } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { ConnectError } from '@connectrpc/connect';
import { messageOf } from '@harrier/shared';
import {
  CreateWorkflowResponseSchema,
  ListWorkflowRunsResponseSchema,
  ListWorkflowsResponseSchema,
  WorkflowRun_State as State,
  type WorkflowRun,
  WorkflowRunSchema,
  WorkflowSchema,
} from '@harrier/shared/gen/workflow';
import { type FileWorkflow, parseWorkflowFile } from '@harrier/shared/workflow-file';
import { formatProblem } from '@harrier/shared/yaml-file/problem';
import { Command, Option } from 'commander';
import { type Clients, withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { formatTime } from '../execution/describe.ts';
import { CliError, EXIT } from '../failure.ts';
import { formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { write, writeError } from '../output/terminal.ts';
import { formatMermaid } from '../workflow/mermaid.ts';
import { exitCodeOf, stateName, watchRun } from '../workflow/watch.ts';
import { limitOption, parseAge, readPages } from './listing.ts';

interface RunFlags extends ConnectionFlags {
  version?: string;
  input?: string;
  key?: string;
  detach?: boolean;
}

interface RunsFlags extends ConnectionFlags {
  state?: keyof typeof State;
  selector?: string;
  since?: Date;
  until?: Date;
  limit: number;
}

const STATES = Object.keys(State).filter((name) => name !== 'STATE_UNSPECIFIED');

export function createWorkflowsCommand(): Command {
  return new Command('workflows')
    .description('Register workflows, run them, and see how they go.')
    .addCommand(createPush())
    .addCommand(createList())
    .addCommand(createRun())
    .addCommand(createRuns())
    .addCommand(createWatch())
    .addCommand(createCancel())
    .addCommand(createSignal())
    .addCommand(createRetry())
    .addCommand(createGraph())
    .addCommand(createRemove());
}

function createPush(): Command {
  const command = new Command('push')
    .description('Register the workflow of a YAML or JSON file. A version never changes.')
    .argument('<file>', 'the definition')
    .action(async (file: string, flags: ConnectionFlags) => {
      const parsed = await readWorkflow(file);
      await withClients(flags, async ({ workflows }) => {
        const answer = await inFile(file, parsed, () => workflows.createWorkflow({ workflow: parsed.workflow }));
        if (flags.json === true) return await write(formatMessage(CreateWorkflowResponseSchema, answer));
        for (const warning of answer.warnings) await writeError(`${placed(file, parsed, warning)} (warning)\n`);
        const { name, version, digest } = answer.workflow ?? parsed.workflow;
        await write(`${name} ${version} is registered (${digest.slice(0, 12)})\n`);
      });
    });
  return addConnectionOptions(command);
}

async function readWorkflow(file: string): Promise<FileWorkflow> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new CliError(`${file} cannot be read: ${messageOf(cause)}`, undefined, { cause });
  }
  const parsed = parseWorkflowFile(text);
  if ('problems' in parsed)
    throw new CliError(parsed.problems.map((problem) => formatProblem(file, problem)).join('\n'));
  return parsed;
}

/** Makes a call about a workflow of a file; each problem that an error of it names gets its line. */
async function inFile<Response>(file: string, parsed: FileWorkflow, call: () => Promise<Response>): Promise<Response> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    const problems = error.rawMessage.split(/; (?=workflow\.)/).map((problem) => placed(file, parsed, problem));
    throw new ConnectError(problems.join('\n'), error.code, undefined, undefined, error.cause);
  }
}

function placed(file: string, { positionOf }: FileWorkflow, problem: string): string {
  const path = /^(?:workflow\.)?([\w.[\]]+)/.exec(problem)?.[1] ?? '';
  return formatProblem(file, { position: positionOf(path), message: problem.replace(/^workflow\./, '') });
}

function createList(): Command {
  const command = new Command('ls')
    .description('List workflows with their latest version.')
    .option('--tag <tag>', 'only with this tag')
    .addOption(limitOption(100))
    .action(async (flags: ConnectionFlags & { tag?: string; limit: number }) => {
      const found = await withClients(flags, async ({ workflows }) => {
        return await readPages(flags.limit, async (page) => {
          const { workflows: items, nextPageToken } = await workflows.listWorkflows({ ...page, tag: flags.tag ?? '' });
          return { items, nextPageToken };
        });
      });
      if (flags.json === true) {
        await write(
          formatMessage(ListWorkflowsResponseSchema, create(ListWorkflowsResponseSchema, { workflows: found })),
        );
        return;
      }
      const rows = found.map(({ name, version, tags, createTime, description }) => {
        return [name, version, tags.join(',') || '-', formatTime(createTime), description.split('\n')[0] ?? ''];
      });
      await write(formatTable(['NAME', 'VERSION', 'TAGS', 'REGISTERED', 'DESCRIPTION'], rows));
    });
  return addConnectionOptions(command);
}

function createRun(): Command {
  const command = new Command('run')
    .description('Run a workflow and follow it to its end; the exit code follows the run.')
    .argument('<name>', 'name of the workflow')
    .option('--version <version>', 'version of the workflow (default the latest)')
    .option('-i, --input <json>', 'input as JSON, or @file')
    .option('--key <key>', 'idempotency key: the same key is the same run')
    .option('-d, --detach', 'print the id of the run and do not wait')
    .action(async (name: string, flags: RunFlags) => {
      const value = await inputOf(flags.input);
      await withClients(flags, async (clients) => {
        const { run } = await clients.workflows.runWorkflow({
          name,
          version: flags.version ?? '',
          idempotencyKey: flags.key ?? '',
          inputForm: { case: 'inputJson', value },
        });
        if (run === undefined) return;
        if (flags.detach === true)
          return await write(flags.json === true ? formatMessage(WorkflowRunSchema, run) : `${run.id}\n`);
        await follow(clients, run.id, flags);
      });
    });
  return addConnectionOptions(command);
}

async function inputOf(input: string | undefined): Promise<string> {
  if (input === undefined) return '{}';
  if (!input.startsWith('@')) return input;
  try {
    return await readFile(input.slice(1), 'utf8');
  } catch (cause) {
    throw new CliError(`${input.slice(1)} cannot be read: ${messageOf(cause)}`, undefined, { cause });
  }
}

async function follow({ workflows }: Clients, id: string, flags: ConnectionFlags): Promise<void> {
  const run = await watchRun(workflows, id, flags.json === true);
  if (flags.json === true) {
    const { run: whole } = await workflows.getWorkflowRun({ id, includeOutputs: true });
    await write(formatMessage(WorkflowRunSchema, whole ?? run));
  } else if (run.state === State.SUCCEEDED) await write(`${run.outputJson}\n`);
  const code = exitCodeOf(run.state);
  if (code !== EXIT.succeeded) throw new CliError(flags.json === true ? '' : failed(run), code);
}

function failed({ id, state, error }: WorkflowRun): string {
  return `run ${id} ${stateName(state)}${error === undefined ? '' : `: ${error.message}`}`;
}

function createRuns(): Command {
  const command = new Command('runs')
    .description('List runs, newest first.')
    .argument('[name]', 'only of this workflow')
    .addOption(new Option('--state <state>', 'only in this state').choices(STATES))
    .option('--selector <labels>', 'only with these labels, for example "team=vision, stage in (a, b)"')
    .option('--since <age>', 'only those accepted since then, for example 15m or 2d', parseAge)
    .option('--until <age>', 'only those accepted before then, for example 1h', parseAge)
    .addOption(limitOption(20))
    .action(async (name: string | undefined, flags: RunsFlags) => {
      const { state, selector, since, until } = flags;
      const filter = {
        workflow: name ?? '',
        state: State[state ?? 'STATE_UNSPECIFIED'],
        labelSelector: selector ?? '',
        ...(since === undefined ? {} : { createTimeFrom: timestampFromDate(since) }),
        ...(until === undefined ? {} : { createTimeTo: timestampFromDate(until) }),
      };
      const runs = await withClients(flags, async ({ workflows }) => {
        return await readPages(flags.limit, async (page) => {
          const { runs: items, nextPageToken } = await workflows.listWorkflowRuns({ ...page, ...filter });
          return { items, nextPageToken };
        });
      });
      if (flags.json === true) {
        await write(formatMessage(ListWorkflowRunsResponseSchema, create(ListWorkflowRunsResponseSchema, { runs })));
        return;
      }
      const rows = runs.map((run) => {
        return [
          run.id,
          run.workflow,
          run.version,
          stateName(run.state),
          formatTime(run.createTime),
          formatTime(run.endTime),
        ];
      });
      await write(formatTable(['ID', 'WORKFLOW', 'VERSION', 'STATE', 'CREATED', 'ENDED'], rows));
    });
  return addConnectionOptions(command);
}

function createWatch(): Command {
  const command = new Command('watch')
    .description('Follow a run to its end; the exit code follows the run.')
    .argument('<id>', 'id of the run')
    .action(async (id: string, flags: ConnectionFlags) => {
      await withClients(flags, async (clients) => await follow(clients, id, flags));
    });
  return addConnectionOptions(command);
}

function createCancel(): Command {
  const command = new Command('cancel')
    .description('Stop a run: what runs is asked to end, what waits is not started.')
    .argument('<id>', 'id of the run')
    .option('--reason <text>', 'for people')
    .action(async (id: string, flags: ConnectionFlags & { reason?: string }) => {
      await change(
        flags,
        async ({ workflows }) => await workflows.cancelWorkflowRun({ id, reason: flags.reason ?? '' }),
        'is asked to stop',
      );
    });
  return addConnectionOptions(command);
}

function createSignal(): Command {
  const command = new Command('signal')
    .description('Give a waiting node what it waits for.')
    .argument('<id>', 'id of the run')
    .argument('<path>', 'path of the node')
    .option('-p, --payload <json>', 'JSON object, or @file', '{}')
    .action(async (id: string, path: string, flags: ConnectionFlags & { payload: string }) => {
      const payloadJson = await inputOf(flags.payload);
      await change(
        flags,
        async ({ workflows }) => await workflows.signalWorkflowRun({ id, path, payloadJson }),
        'was told',
      );
    });
  return addConnectionOptions(command);
}

function createRetry(): Command {
  const command = new Command('retry')
    .description('Start a run again from the nodes that failed; what succeeded is kept.')
    .argument('<id>', 'id of the run')
    .action(async (id: string, flags: ConnectionFlags) => {
      await change(flags, async ({ workflows }) => await workflows.retryWorkflowRun({ id }), 'is started again');
    });
  return addConnectionOptions(command);
}

async function change(
  flags: ConnectionFlags,
  call: (clients: Clients) => Promise<{ run?: WorkflowRun | undefined }>,
  done: string,
): Promise<void> {
  const { run } = await withClients(flags, call);
  if (run === undefined) return;
  await write(flags.json === true ? formatMessage(WorkflowRunSchema, run) : `run ${run.id} ${done}\n`);
}

function createGraph(): Command {
  const command = new Command('graph')
    .description('Print a registered workflow, or that of a file, as a Mermaid flowchart; with --json its definition.')
    .argument('<name>', 'name of the workflow, or a file that ends in .yaml, .yml or .json')
    .option('--version <version>', 'version of the workflow (default the latest)')
    .action(async (name: string, flags: ConnectionFlags & { version?: string }) => {
      const workflow = /\.(ya?ml|json)$/.test(name)
        ? (await readWorkflow(name)).workflow
        : await withClients(flags, async ({ workflows }) => {
            return (await workflows.getWorkflow({ name, version: flags.version ?? '' })).workflow;
          });
      if (workflow === undefined) return;
      await write(flags.json === true ? formatMessage(WorkflowSchema, workflow) : formatMermaid(workflow));
    });
  return addConnectionOptions(command);
}

function createRemove(): Command {
  const command = new Command('rm')
    .description('Remove a workflow, or one version of it. Runs that were accepted before go on.')
    .argument('<name>', 'name of the workflow')
    .option('--version <version>', 'remove only this version')
    .action(async (name: string, flags: ConnectionFlags & { version?: string }) => {
      const { deletedVersions } = await withClients(flags, async ({ workflows }) => {
        return await workflows.deleteWorkflow({ name, version: flags.version ?? '' });
      });
      if (flags.json === true) await write(`${JSON.stringify({ name, deletedVersions })}\n`);
      else await write(`${name}: ${deletedVersions} ${deletedVersions === 1 ? 'version' : 'versions'} removed\n`);
    });
  return addConnectionOptions(command);
}
