import { execFileSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TestSlurm } from '../../test/support/slurm.ts';
import { python, SlurmAgent } from '../../test/support/slurm-agent.ts';
import { until } from '../../test/support/wait.ts';
import { directory, environment } from '../../test/support/workspace.ts';
import { median } from '../statistics.ts';

const JOBS = 100;
/** The medians of some rounds are told: others may have the processors for a while. */
const ROUNDS = 3;
const DEADLINE_MS = 300_000;
/** Longer than a command of Slurm waits for the controller (MessageTimeout). */
const COMMAND_MS = 90_000;
const SOURCE = `import json
def handler(input):
    print("running", flush=True)
    return {"n": input["n"]}
`;
/** Stands in for sbatch: keeps its arguments and its script, and submits nothing. */
const RECORD = `#!/bin/sh
call=$(mktemp -d "$(dirname "$0")/calls/XXXXXX")
cat >"$call/script"
printf '%s\\0' "$@" >"$call/arguments"
echo 1
`;

/**
 * A hundred jobs, from the first submission until all are seen to have ended, on the same cluster one after the other:
 * by the agent; by hand, with the very calls of sbatch that the agent makes, in a loop, and a look at the queue until it has
 * no more of them; and by hand with a plain script that runs the same handler without sandbox, limits and result.
 */
export async function measureSlurm(): Promise<Record<string, number>> {
  // A hundred jobs at once are much for two processors: commands may wait longer than usual.
  const slurm = await TestSlurm.start({ cpus: 2 * JOBS, batchDelayS: 3, settings: ['MessageTimeout=60'] });
  try {
    const rounds: { plainMs: number; sameMs: number; agentMs: number }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const plainMs = await timeOf(slurm, plainCalls());
      const sameMs = await timeOf(slurm, await sameCalls(slurm));
      rounds.push({ plainMs, sameMs, agentMs: await jobsByAgent(slurm, `agent-${round}`) });
    }
    const plainMs = median(rounds.map((round) => round.plainMs));
    const sameMs = median(rounds.map((round) => round.sameMs));
    const agentMs = median(rounds.map((round) => round.agentMs));
    return {
      slurm_100_ms: agentMs,
      slurm_100_by_hand_ms: sameMs,
      slurm_100_over_by_hand: agentMs / sameMs,
      slurm_100_over_plain_script: agentMs / plainMs,
    };
  } finally {
    await slurm.stop();
  }
}

interface Call {
  args: string[];
  script: string;
}

function plainCalls(): Call[] {
  const home = directory('hand');
  const main = 'import sys\njson.dump(handler(json.load(sys.stdin)), open(sys.argv[1], "w"))\n';
  writeFileSync(join(home, 'job.py'), `${SOURCE}${main}`);
  return Array.from({ length: JOBS }, (_, n) => ({
    args: [`--chdir=${home}`, `--job-name=plain-${n}`, '--mem=384M', `--output=${n}.log`],
    script: `#!/bin/sh\necho '{"n": ${n}}' | python3 job.py ${n}.json\n`,
  }));
}

/** The calls that an agent makes for the jobs; what they are to run is in its shared directory. */
async function sameCalls(slurm: TestSlurm): Promise<Call[]> {
  const programs = directory('programs');
  const calls = directory('programs');
  writeFileSync(join(programs, 'sbatch'), RECORD.replace('$(dirname "$0")/calls', calls));
  chmodSync(join(programs, 'sbatch'), 0o755);
  const agent = await SlurmAgent.open(slurm, { maxJobs: JOBS, programs });
  startAll(agent, 'same');
  const made = () => readdirSync(calls).filter((name) => readdirSync(join(calls, name)).includes('arguments'));
  await until('the calls to be made', () => made().length === JOBS);
  await agent.close();
  return made().map((name) => ({
    args: readFileSync(join(calls, name, 'arguments'), 'utf8')
      .split('\0')
      .slice(0, -1),
    script: readFileSync(join(calls, name, 'script'), 'utf8'),
  }));
}

async function timeOf(slurm: TestSlurm, calls: readonly Call[]): Promise<number> {
  const startMs = performance.now();
  for (const { args, script } of calls) {
    execFileSync('sbatch', args, {
      input: script,
      env: environment(slurm.environment),
      stdio: ['pipe', 'ignore', 'inherit'],
      timeout: COMMAND_MS,
    });
  }
  const left = () => slurm.run('squeue', '--noheader', '--format=%A %T %r');
  await until('the end of the jobs by hand', () => left() === '', { deadlineMs: DEADLINE_MS, seen: left });
  return performance.now() - startMs;
}

async function jobsByAgent(slurm: TestSlurm, prefix: string): Promise<number> {
  const agent = await SlurmAgent.open(slurm, { maxJobs: JOBS });
  try {
    const startMs = performance.now();
    const names = startAll(agent, prefix);
    const left = () => names.filter((name) => !agent.told.ends.has(name)).length;
    await until('the jobs of the agent', () => left() === 0, { deadlineMs: DEADLINE_MS, seen: left });
    const passedMs = performance.now() - startMs;
    for (const name of names) {
      const end = agent.told.ends.get(name);
      if (end?.outcome !== 'succeeded') throw new Error(`${name}: ${end?.error?.message}`);
    }
    return passedMs;
  } finally {
    await agent.close();
  }
}

function startAll(agent: SlurmAgent, prefix: string): string[] {
  const names = Array.from({ length: JOBS }, (_, n) => `${prefix}-${n}`);
  for (const [n, name] of names.entries()) {
    const refused = agent.start(name, { ...python(SOURCE), inputJson: Buffer.from(`{"n": ${n}}`) });
    if (refused !== undefined) throw new Error(refused.error.message);
  }
  return names;
}
