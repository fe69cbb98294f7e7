import { killProcess } from '../world/kill-process.ts';
import { anAgent, type Fault, TAKES_ATTEMPTS } from './fault.ts';

/** kill -9 of a launcher: what it runs ends with it. */
export const launcherKill: Fault = {
  ...TAKES_ATTEMPTS,
  async run(context) {
    const host = anAgent(context);
    if (host.agent.launcherPid !== undefined) killProcess(host.agent.launcherPid);
    else context.miss();
    return [host.selector];
  },
};
