import { readdir, readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { HardwareFacts, Probe } from './probe.ts';

const EVERY_MS = 60_000;
const SYS = '/sys/class/net';
const MEGABIT = 1_000_000;
/** Of containers and virtual machines: they come and go with them, and say nothing of the host. */
const PASSING = /^(lo|veth|docker\d|br-|virbr|tap|tun|cali|cni|flannel|cilium|lxc)/;

/** @param directory in the form of /sys/class/net; where there is none only the addresses are known */
export function networksProbe(directory = SYS): Probe {
  return {
    everyMs: EVERY_MS,
    read: async () => {
      const addresses = networkInterfaces();
      const names = await readdir(directory).catch(() => Object.keys(addresses));
      const wanted = names.filter((name) => !PASSING.test(name)).sort();
      return { networks: await Promise.all(wanted.map((name) => readInterface(directory, name, addresses))) };
    },
  };
}

async function readInterface(
  directory: string,
  name: string,
  addresses: ReturnType<typeof networkInterfaces>,
): Promise<NonNullable<HardwareFacts['networks']>[number]> {
  const read = async (file: string) => (await readFile(join(directory, name, file), 'utf8').catch(() => '')).trim();
  const [speed, state] = await Promise.all([read('speed'), read('operstate')]);
  const own = addresses[name] ?? [];
  const megabits = Number(speed);
  return {
    name,
    // -1, or an error, when nothing is plugged in; virtual interfaces have none.
    bitsPerSecond: megabits > 0 ? BigInt(megabits) * BigInt(MEGABIT) : 0n,
    // A virtual interface does not know, and carries traffic when it has an address.
    up: state === 'up' || (state !== 'down' && own.length > 0),
    addresses: own.map(({ address }) => address),
  };
}
