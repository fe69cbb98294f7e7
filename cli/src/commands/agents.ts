import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { parseDurationMs } from '@harrier/shared';
import {
  type Agent,
  AgentSchema,
  Agent_State as AgentState,
  CreateJoinTokenResponseSchema,
  Isolation_Level as Isolation,
  ListAgentsResponseSchema,
} from '@harrier/shared/gen/agent';
import { Command, InvalidArgumentError } from 'commander';
import { describeAgent } from '../agent/describe-agent.ts';
import { gpuCell } from '../agent/describe-gpus.ts';
import { type Clients, withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { formatTime, nameIn } from '../execution/describe.ts';
import { CliError } from '../failure.ts';
import { formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { paint, type Style, write, writeError } from '../output/terminal.ts';
import { createClearGpuCommand } from './agent-gpus.ts';
import { createServicesCommand } from './agent-services.ts';
import { limitOption, readPages } from './listing.ts';

const STATE_STYLES: Readonly<Record<string, Style>> = { ONLINE: 'green', DRAINING: 'yellow', OFFLINE: 'red' };
const ALL_AGENTS = 10_000;

export function createAgentsCommand(): Command {
  return new Command('agents')
    .description('List, show, drain and remove agents; make tokens with which new ones join.')
    .addCommand(createList())
    .addCommand(createGet())
    .addCommand(
      createChange(
        'drain',
        'Give agents no new work; what runs goes on.',
        async (agents, id) => (await agents.drainAgent({ id })).agent,
      ),
    )
    .addCommand(
      createChange('resume', 'Give agents work again.', async (agents, id) => (await agents.resumeAgent({ id })).agent),
    )
    .addCommand(
      createChange(
        'rm',
        'Remove agents: their keys are refused from now on, what they run is lost.',
        async (agents, id) => {
          await agents.deleteAgent({ id });
          return undefined;
        },
      ),
    )
    .addCommand(createServicesCommand(idOf))
    .addCommand(createClearGpuCommand(idOf))
    .addCommand(createToken());
}

interface ListFlags extends ConnectionFlags {
  selector?: string;
  limit: number;
}

function createList(): Command {
  const command = new Command('ls')
    .description('List agents by name.')
    .option('--selector <labels>', 'only with these labels, for example "zone=eu, !spot"')
    .addOption(limitOption(100))
    .action(async (flags: ListFlags) => {
      const agents = await withClients(
        flags,
        async (clients) => await list(clients.agents, flags.limit, flags.selector),
      );
      if (flags.json === true) {
        await write(formatMessage(ListAgentsResponseSchema, create(ListAgentsResponseSchema, { agents })));
      } else {
        const heading = ['ID', 'NAME', 'STATE', 'ACTIVE', 'SLOTS', 'ISOLATION', 'LABELS', 'LAST SEEN', 'GPUS'];
        await write(formatTable(heading, agents.map(rowOf)));
      }
    });
  return addConnectionOptions(command);
}

async function list(client: Clients['agents'], limit: number, labelSelector = ''): Promise<Agent[]> {
  return await readPages(limit, async (page) => {
    const { agents, nextPageToken } = await client.listAgents({ ...page, labelSelector });
    return { items: agents, nextPageToken };
  });
}

function rowOf(agent: Agent): string[] {
  const state = nameIn(AgentState, agent.state);
  const labels = Object.entries(agent.labels).map(([key, value]) => `${key}=${value}`);
  return [
    agent.id,
    agent.name,
    paint(STATE_STYLES[state] ?? 'dim', state) + keptUntil(agent),
    String(agent.activeExecutions),
    String(agent.slots),
    agent.isolation === undefined ? '-' : nameIn(Isolation, agent.isolation.level),
    labels.join(',') || '-',
    formatTime(agent.lastSeenTime) || '-',
    gpuCell(agent.hardware?.gpus ?? []),
  ];
}

/** While most agents are gone their work is given to nobody else. */
function keptUntil({ brakeEndTime }: Agent): string {
  return brakeEndTime === undefined ? '' : `, work kept until ${formatTime(brakeEndTime)}`;
}

/** A command that does the same to each agent that is named. */
function createChange(
  name: string,
  description: string,
  change: (agents: Clients['agents'], id: string) => Promise<Agent | undefined>,
): Command {
  const command = new Command(name)
    .description(description)
    .argument('<agent...>', 'ids or names of the agents')
    .action(async (wanted: string[], flags: ConnectionFlags) => {
      await withClients(flags, async ({ agents }) => {
        for (const id of await idsOf(agents, wanted)) {
          const agent = await change(agents, id);
          if (flags.json === true)
            await write(agent === undefined ? `{"id":"${id}"}\n` : formatMessage(AgentSchema, agent));
          else await write(`${id} ${agent === undefined ? 'removed' : nameIn(AgentState, agent.state)}\n`);
        }
      });
    });
  return addConnectionOptions(command);
}

function createGet(): Command {
  const command = new Command('get')
    .description(
      'Show an agent: its hardware with live figures, what it can have and has, and what keeps it from work.',
    )
    .argument('<agent>', 'id or name of the agent')
    .action(async (wanted: string, flags: ConnectionFlags) => {
      const agent = await withClients(flags, async ({ agents }) => {
        return (await agents.getAgent({ id: await idOf(agents, wanted) })).agent;
      });
      if (agent === undefined) throw new CliError('the answer has no agent');
      await write(flags.json === true ? formatMessage(AgentSchema, agent) : describeAgent(agent));
    });
  return addConnectionOptions(command);
}

async function idOf(client: Clients['agents'], wanted: string): Promise<string> {
  return (await idsOf(client, [wanted]))[0] ?? wanted;
}

/** All of them before anything is done to one. @throws CliError for a name that none or several agents have */
async function idsOf(client: Clients['agents'], wanted: readonly string[]): Promise<string[]> {
  const isId = (text: string): boolean => /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(text);
  if (wanted.every(isId)) return [...wanted];
  const agents = await list(client, ALL_AGENTS);
  return wanted.map((text) => {
    if (isId(text)) return text;
    const found = agents.filter(({ name }) => name === text);
    if (found.length > 1)
      throw new CliError(
        `${found.length} agents are named "${text}"; give the id: ${found.map(({ id }) => id).join(', ')}`,
      );
    if (found[0] === undefined) throw new CliError(`there is no agent "${text}"; see harrier agents ls`);
    return found[0].id;
  });
}

function createToken(): Command {
  const command = new Command('token')
    .description('Make a token with which one new agent can join, once.')
    .option('--ttl <duration>', 'how long it can be used, for example 15m or 7d (default 1 hour)', (text) => {
      const ms = parseDurationMs(text);
      if (ms === undefined) throw new InvalidArgumentError('Write a duration like 15m, 2h or 7d.');
      return durationFromMs(ms);
    })
    .action(async (flags: ConnectionFlags & { ttl?: ReturnType<typeof durationFromMs> }) => {
      const response = await withClients(
        flags,
        async ({ agents }) => await agents.createJoinToken(flags.ttl === undefined ? {} : { ttl: flags.ttl }),
      );
      if (flags.json === true) {
        await write(formatMessage(CreateJoinTokenResponseSchema, response));
        return;
      }
      await write(`${response.token}\n`);
      await writeError(
        `Good for one agent until ${formatTime(response.expireTime)}. On its host, put it into a file and run:\n` +
          '  harrier agent --server-url URL --join-token-file FILE\n',
      );
    });
  return addConnectionOptions(command);
}
