import { realpath } from 'node:fs/promises';
import { findExecutable, findExecutables } from './find-executable.ts';
import type { HardwareFacts, Probe } from './probe.ts';
import { runTool } from './run-tool.ts';

type Tool = Exclude<NonNullable<HardwareFacts['tools']>[number], { $typeName: string }>;

/** What is installed changes seldom; asking starts a dozen processes. */
const EVERY_MS = 3_600_000;
const TIMEOUT_MS = 5_000;

/** How each tool says its version. `docker` names that of its engine only when the engine runs. */
const TOOLS: readonly { name: string; command: string; args: readonly string[] }[] = [
  { name: 'docker', command: 'docker', args: ['version', '--format', '{{.Server.Version}}'] },
  { name: 'conda', command: 'conda', args: ['--version'] },
  { name: 'mamba', command: 'mamba', args: ['--version'] },
  { name: 'micromamba', command: 'micromamba', args: ['--version'] },
  { name: 'slurm', command: 'sbatch', args: ['--version'] },
  { name: 'bubblewrap', command: 'bwrap', args: ['--version'] },
  { name: 'nodejs', command: 'node', args: ['--version'] },
  { name: 'uv', command: 'uv', args: ['--version'] },
];
const PYTHON = /^python3(\.\d+)?$/;
const PYTHON_SCRIPT = 'import sys; print("%d.%d.%d" % sys.version_info[:3]); print(sys.executable)';

/** Interpreters and tools on the agent's search path that answer when asked for their version. */
export function toolsProbe(searchPath: string): Probe {
  return {
    everyMs: EVERY_MS,
    read: async () => {
      const [pythons, ...tools] = await Promise.all([
        readPythons(searchPath),
        ...TOOLS.map(({ name, command, args }) => readTool(name, command, args, searchPath)),
      ]);
      return { tools: [...pythons, ...tools.filter((tool) => tool !== undefined)] };
    },
  };
}

async function readTool(
  name: string,
  command: string,
  args: readonly string[],
  searchPath: string,
): Promise<Tool | undefined> {
  const path = await findExecutable(command, searchPath);
  if (path === undefined) return undefined;
  const version = versionIn((await runTool(path, args, TIMEOUT_MS)) ?? '');
  return version === undefined ? undefined : { name, version, path };
}

/** Each interpreter once, though several names and shims may lead to it. One after the other: shims are heavy. */
async function readPythons(searchPath: string): Promise<Tool[]> {
  const found = new Map<string, Tool>();
  for (const command of await findExecutables(PYTHON, searchPath)) {
    const output = await runTool(command, ['-I', '-c', PYTHON_SCRIPT], TIMEOUT_MS);
    const [version = '', path = ''] = (output ?? '').split('\n').map((line) => line.trim());
    if (version === '') continue;
    const file = await realpath(path).catch(() => path);
    if (!found.has(file)) found.set(file, { name: 'python', version, path });
  }
  return [...found.values()];
}

/** The first thing that looks like a version. */
export function versionIn(text: string): string | undefined {
  return /\d+\.\d+[\w.+-]*/.exec(text)?.[0];
}
