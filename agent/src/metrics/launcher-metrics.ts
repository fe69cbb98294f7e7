import { readFile } from 'node:fs/promises';
import { collectedCounter, collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';

/** Bytes of a page on every platform that the launcher runs on; sysconf(_SC_PAGESIZE) cannot be asked from here. */
const PAGE_BYTES = 4096;

export interface LauncherSources {
  up: () => boolean;
  /** It is of another build than the agent. */
  outdated: () => boolean;
  /** Undefined while none has answered yet. */
  pid: () => number | undefined;
  /** Launchers that were lost since the agent's start. */
  losses: () => number;
  load: () => { active: number; zygotes: number; workers: number };
}

/** The launcher, which runs what is not in a container of its own. */
export function addLauncherMetrics(
  register: MetricsRegistry,
  { up, outdated, pid, losses, load }: LauncherSources,
): void {
  const gauge = (name: string, help: string, read: () => number | undefined | Promise<number | undefined>) =>
    collectedGauge(register, { name, help, read });
  gauge('harrier_agent_launcher_up', 'Whether the launcher answers.', () => Number(up()));
  gauge(
    'harrier_agent_launcher_outdated',
    'Whether the launcher is of another build than the agent, and is replaced when it has nothing to do.',
    () => Number(outdated()),
  );
  gauge('harrier_agent_launcher_active', 'Attempts that the launcher runs.', () => load().active);
  gauge('harrier_agent_launcher_zygotes', 'Warm interpreters of the launcher.', () => load().zygotes);
  gauge(
    'harrier_agent_launcher_workers',
    'Processes that were forked from warm interpreters: those of calls, and those that wait for one.',
    () => load().workers,
  );
  gauge('harrier_agent_launcher_resident_memory_bytes', 'Resident memory of the process of the launcher.', async () => {
    const launcher = pid();
    if (launcher === undefined || !up()) return undefined;
    // Its second field is the resident set in pages; see proc(5).
    const pages = Number((await readFile(`/proc/${launcher}/statm`, 'utf8')).split(' ')[1]);
    return pages * PAGE_BYTES;
  });
  collectedCounter(register, {
    name: 'harrier_agent_launcher_losses_total',
    help: "Times that the launcher's connection was lost since the start of the agent.",
    read: losses,
  });
}
