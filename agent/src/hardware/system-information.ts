import { fileURLToPath } from 'node:url';
import { runTool } from './run-tool.ts';

const REPORT = fileURLToPath(new URL('./system-information-report.ts', import.meta.url));
const TIMEOUT_MS = 20_000;

/** What is taken from the package `systeminformation`. */
export interface SystemInformation {
  cpu: { manufacturer: string; brand: string; physicalCores: number; cores: number };
  os: { platform: string; distro: string; release: string; kernel: string };
  graphics: { vendor: string; model: string; vramMib: number }[];
}

/**
 * Asks `systeminformation` in a process of its own: it waits for some tools synchronously and without a deadline, and a
 * driver that hangs must not stop the agent. Undefined when it does not answer.
 */
export async function readSystemInformation(): Promise<SystemInformation | undefined> {
  const text = await runTool(process.execPath, [REPORT], TIMEOUT_MS);
  return text === undefined ? undefined : (JSON.parse(text) as SystemInformation);
}
