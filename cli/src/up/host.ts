import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseHostPort, VERSION } from '@harrier/shared';
import type { Agent } from '@harrier/shared/gen/agent';
import { adminKeyPath } from '../config.ts';
import { withClients } from '../connection/clients.ts';
import { CliError, EXIT } from '../failure.ts';
import { writeError } from '../output/terminal.ts';
import { joinedAgentId, linkedAgent } from './agent-state.ts';
import { Child, type ChildOptions, TITLES } from './child.ts';
import { formatLogLine } from './log-line.ts';

/** The first start creates a database and fills the agent's compile cache. */
const LINK_DEADLINE_MS = 60_000;
/** The agent's exit code when the control plane does not want it. */
const EXIT_UNWANTED = 77;

export interface HostOptions {
  dataDirectory: string;
  serverFlags: readonly string[];
  agentFlags: readonly string[];
  logLevel: string;
  /** Logs as the JSON lines that they are. */
  jsonLogs: boolean;
  environment: NodeJS.ProcessEnv;
}

/** What a user of the running pair needs to know. */
export interface ReadyHost {
  url: string;
  grpc: string | undefined;
  metrics: string;
  keyFile: string;
  dataDirectory: string;
  agent: Agent;
}

/** A control plane and an agent on one machine. */
export interface Host {
  /** Both run and the agent is linked. @throws CliError when one of them ends first */
  ready: Promise<ReadyHost>;
  /** Both have ended after `stop`. @throws CliError when one of them ended by itself; the other has been stopped then */
  ended: Promise<void>;
  /** Stops the agent, then the control plane. Again: what runs is not waited for. A third time: kills both. */
  stop(): void;
}

/** Starts the control plane and, when it is ready, the agent. */
export async function startHost(options: HostOptions): Promise<Host> {
  const { dataDirectory } = options;
  const cache = join(dataDirectory, 'compile-cache', VERSION);
  await mkdir(dataDirectory, { recursive: true, mode: 0o755 });
  // Code that is run from here must not be written by others.
  await mkdir(cache, { recursive: true, mode: 0o700 });

  const { HARRIER_JOIN_TOKEN: _token, HARRIER_SERVER_URL: _url, ...inherited } = options.environment;
  const common = { ...inherited, HARRIER_LOG_LEVEL: options.logLevel, HARRIER_DATA_DIR: dataDirectory };
  const onLine: ChildOptions['onLine'] = (line, name) =>
    void writeError(`${options.jsonLogs ? line : formatLogLine(TITLES[name], line)}\n`);
  const children: Child[] = [];
  const stopping = Promise.withResolvers<void>();
  let stops = 0;

  function start(name: 'server' | 'agent', flags: readonly string[], environment: NodeJS.ProcessEnv): Child {
    const child = new Child({ name, flags, environment, onLine });
    children.push(child);
    return child;
  }

  async function bringUp(): Promise<ReadyHost> {
    // Stripped of their types once, then loaded from there: half the time to start, and less memory.
    const server = start('server', options.serverFlags, { ...common, NODE_COMPILE_CACHE: cache });
    const addresses = JSON.parse(await server.ready()) as { listen: string; metrics: string; grpc?: string };
    const keyFile = adminKeyPath(dataDirectory);
    const url = `http://${reachable(addresses.listen)}`;
    return await withClients({ server: url, keyFile }, async ({ agents }) => {
      const agentDirectory = join(dataDirectory, 'agent');
      const joined = await joinedAgentId(agentDirectory);
      const token = joined === undefined ? (await agents.createJoinToken({})).token : undefined;
      if (stops > 0) throw new CliError('stopped before it was ready', EXIT.cancelled);
      const agent = start('agent', options.agentFlags, {
        ...common,
        // The agent has a cache of its own, and smaller memory settings with it.
        NODE_COMPILE_CACHE: undefined,
        HARRIER_SERVER_URL: url,
        HARRIER_AGENT_DATA_DIR: agentDirectory,
        HARRIER_AGENT_STOP_LAUNCHER: 'true',
        HARRIER_JOIN_TOKEN: token,
      });
      const linked = await agent
        .orEnd(async (signal) => await linkedAgent(agents, agentDirectory, { deadlineMs: LINK_DEADLINE_MS, signal }))
        .catch((error: unknown) => explain(error, agent, agentDirectory));
      return { url, grpc: addresses.grpc, metrics: addresses.metrics, keyFile, dataDirectory, agent: linked };
    });
  }

  async function watch(): Promise<void> {
    // The server first: the agent comes when the server is ready.
    await Promise.race([ready.catch(() => {}), stopping.promise]);
    const first = await Promise.race([
      stopping.promise,
      ...children.map((child) => child.ended.then((ending) => ({ child, ending }))),
    ]);
    // An agent finishes what it runs and hands over the results; for that it needs the control plane.
    for (const child of children.toReversed()) {
      child.ask();
      await child.ended;
    }
    if (first !== undefined && stops === 0) {
      throw new CliError(`the ${TITLES[first.child.name]} ${first.ending.text}`, EXIT.failed);
    }
  }

  const ready = bringUp();
  const ended = watch();
  // Whoever waits for one of them may not wait for the other.
  ready.catch(() => {});
  ended.catch(() => {});
  return {
    ready,
    ended,
    stop: () => {
      stops += 1;
      stopping.resolve();
      if (stops === 2) children.findLast((child) => child.name === 'agent')?.ask();
      if (stops > 2) for (const child of children) child.kill();
    },
  };
}

async function explain(error: unknown, agent: Child, agentDirectory: string): Promise<never> {
  const ended = await Promise.race([agent.ended, undefined]);
  if (ended?.code !== EXIT_UNWANTED) throw error;
  throw new CliError(
    `the control plane does not know the agent of ${agentDirectory}; remove that directory to let it join again`,
    EXIT.failed,
    { cause: error },
  );
}

/** An address that listens everywhere is reached on the loopback. */
function reachable(listen: string): string {
  const port = parseHostPort(listen)?.port;
  if (listen.startsWith('0.0.0.0:')) return `127.0.0.1:${port}`;
  return listen.startsWith('[::]:') ? `[::1]:${port}` : listen;
}
