import { createHash } from 'node:crypto';
import { stripVTControlCharacters } from 'node:util';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Bind, StartEnvironment, StartNetwork } from '../launcher/messages.ts';
import type { TaskEvents } from '../tasks/shared-tasks.ts';
import type { BuildRuns } from './build-runs.ts';
import type { BuildDirectories } from './build-space.ts';
import { EnvironmentError } from './environment.ts';

/** Where a prepared environment is in the sandbox, also while it is built: so its paths never change. */
export const ENVIRONMENT_PATH = '/environment';
export const TOOLS_PATH = '/opt/harrier';
const CACHE_PATH = '/cache';
/** Builds of large packages are slow; one that does not end must not hold its slot for ever. */
const BUILD_TIMEOUT_MS = 30 * 60_000;
const MIB = 1024 * 1024;
/** With those of the host; the caller's own limits are for the code that runs later. */
const LIMITS = {
  stdout_bytes: 16 * MIB,
  stderr_bytes: 16 * MIB,
  result_bytes: MIB,
  tmp_bytes: 1024 * MIB,
  processes: 1024,
};
/** Of `ulimit`, in POSIX. */
const FILE_BLOCK_BYTES = 512;
/** What it is given first is the most that a file of it may have. */
const LIMITED = 'ulimit -f "$1" && shift && exec "$@"';
/** The line on standard output by which a step says that the environment has its interpreter. */
export const MADE = '# made';
const MADE_LINE = new RegExp(`^${MADE}\n`, 'm');
/** Of the end of its output, what is told as the reason of a failure. */
const REASON_BYTES = 4_000;

/** What shapes the sandbox of a build. */
export interface BuildSandbox {
  tenant: string;
  directories: BuildDirectories;
  /** Tools and interpreters beside what the sandbox has. */
  binds: readonly Bind[];
  /** Its steps are given a password, and run nobody's code. Default: false. */
  closed?: boolean;
}

export interface BuildCommand extends BuildSandbox {
  argv: readonly string[];
  input: string;
  variables?: Readonly<Record<string, string>>;
  hosts: readonly string[];
}

export interface BuildEvents extends TaskEvents {
  /** The environment has its interpreter, and nothing but packages is still missing. At most once. */
  onMade?: (() => void) | undefined;
}

/**
 * Runs a step of a build in a sandbox, without anything of the agent: it can write to the environment that it builds and
 * to the packages that this tenant's builds keep, and reach the package index.
 * @returns what it wrote to standard output, without a line `MADE`; standard error goes to the events
 * @throws EnvironmentError with the end of its standard error
 */
export async function runBuild(
  runs: BuildRuns,
  { argv, input, variables, hosts, ...sandbox }: BuildCommand,
  events: BuildEvents,
  signal: AbortSignal,
): Promise<string> {
  const stdout: Uint8Array[] = [];
  let onMade = events.onMade;
  let reason = Buffer.alloc(0);
  const { tenant, directories } = sandbox;
  const network: StartNetwork | undefined = hosts.length === 0 ? undefined : { mode: 'hosts', hosts };
  const end = await runs.run(
    {
      tenant,
      argv: ['sh', '-c', LIMITED, 'sh', String(Math.floor(directories.maxFileBytes / FILE_BLOCK_BYTES)), ...argv],
      input: Buffer.from(input),
      variables: {
        PATH: `${TOOLS_PATH}:/usr/local/bin:/usr/bin:/bin`,
        HOME: `${CACHE_PATH}/home`,
        TMPDIR: `${CACHE_PATH}/tmp`,
        SSL_CERT_FILE: '/etc/ssl/certs/ca-certificates.crt',
        ...variables,
      },
      environment: environmentOf(sandbox),
      network,
      limits: { ...LIMITS, memory_bytes: runs.bounds.memoryBytes, cpu: runs.bounds.cpu },
      timeoutMs: BUILD_TIMEOUT_MS,
      onOutput: (stream, data) => {
        // The bytes are a part of the launcher's frame, which is used again.
        const copy = Buffer.from(data);
        if (stream === 'stdout') {
          stdout.push(copy);
          if (onMade !== undefined && copy.toString('latin1').includes(`${MADE}\n`)) {
            onMade();
            onMade = undefined;
          }
          return;
        }
        reason = Buffer.concat([reason, copy]).subarray(-REASON_BYTES);
        events.onOutput(copy);
      },
    },
    events,
    signal,
  );
  if (end.outcome === 'succeeded') return Buffer.concat(stdout).toString('utf8').replace(MADE_LINE, '');
  const told = stripVTControlCharacters(reason.toString('utf8')).trim();
  const ended = end.error?.message ?? end.outcome;
  // A program that ends by itself has said why; one that was ended, or crashed, has not.
  const why = told === '' ? ended : end.error?.code === 'EXIT_NONZERO' ? told : `${told}\n${ended}`;
  throw new EnvironmentError(Code.ENVIRONMENT_FAILED, why);
}

/**
 * Starts a sandbox ahead of the first step with a network that is run in it, which finds it. Nothing but the runtime runs there
 * before.
 * @returns ends it, when no step came
 */
export function startBuildAhead(runs: BuildRuns, sandbox: BuildSandbox): () => void {
  return runs.startAhead(sandbox.tenant, environmentOf(sandbox), { tmp_bytes: LIMITS.tmp_bytes, network: true });
}

/** The key names the directories, which are of one build only. */
function environmentOf({ directories, binds, closed = false }: BuildSandbox): StartEnvironment {
  const mounts = [
    { source: directories.tree, target: ENVIRONMENT_PATH, writable: true },
    { source: closed ? directories.closedCache : directories.cache, target: CACHE_PATH, writable: true },
    ...binds,
  ];
  return { key: `build ${createHash('sha256').update(JSON.stringify(mounts)).digest('hex')}`, binds: mounts };
}
