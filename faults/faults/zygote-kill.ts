import { killProcess } from '../world/kill-process.ts';
import { anAgent, type Fault, TAKES_ATTEMPTS } from './fault.ts';

/** kill -9 of a warm interpreter in its sandbox: the calls that were forked from it end with it. */
export const zygoteKill: Fault = {
  ...TAKES_ATTEMPTS,
  async run(context) {
    const host = anAgent(context);
    const processes = host.agent.launcherProcesses();
    const sandboxes = processes.filter(({ command }) => /^\S*bwrap /.test(command)).map(({ pid }) => pid);
    const zygotes = processes.filter(({ parent }) => sandboxes.includes(parent));
    if (zygotes.length > 0) killProcess(context.random.pick(zygotes).pid);
    else context.miss();
    return [host.selector];
  },
};
