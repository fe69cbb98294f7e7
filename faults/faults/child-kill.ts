import { killProcess } from '../world/kill-process.ts';
import { anAgent, type Fault, TAKES_ATTEMPTS } from './fault.ts';

const KILLED = 3;

/** kill -9 of processes that run calls, or wait for one, as the kernel does when memory is short. */
export const childKill: Fault = {
  ...TAKES_ATTEMPTS,
  async run(context) {
    const host = anAgent(context);
    const processes = host.agent.launcherProcesses();
    const parents = new Set(processes.map(({ parent }) => parent));
    const leaves = processes.filter(({ pid }) => !parents.has(pid) && context.world.witness.isOwn(pid));
    for (const { pid } of context.random.shuffled(leaves).slice(0, KILLED)) killProcess(pid);
    if (leaves.length === 0) context.miss();
    return [host.selector];
  },
};
