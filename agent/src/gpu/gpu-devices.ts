import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '@harrier/shared';
import type { GpuAccess } from '../executor/gpu-access.ts';
import { findExecutable } from '../hardware/find-executable.ts';
import type { NvidiaCard } from '../hardware/nvidia-card.ts';
import { runTool } from '../hardware/run-tool.ts';

/** What every program that uses a card opens; `nvidia-uvm-tools` is for profilers only. */
const COMMON = ['nvidiactl', 'nvidia-uvm'];
const OPTIONAL = ['nvidia-uvm-tools'];
/** Which of the nodes below nvidia-caps a MIG instance needs: lines like `gpu0/gi1/ci0/access 13`. */
const MIG_MINORS = '/proc/driver/nvidia-caps/mig-minors';
const LIBRARY = /^\s*libcuda\.so\.1 .*=> (\/.+)$/m;
/** The sandbox has these anyway. */
const SYSTEM = /^\/(usr|lib|lib64)(\/|$)/;
const TIMEOUT_MS = 5_000;

export interface GpuDevicesOptions {
  cardOf: (uuid: string) => NvidiaCard | undefined;
  /** Where the device nodes are; in a sandbox they are in /dev. */
  devRoot: string;
  /** Where tools are looked for, as in PATH. */
  searchPath: string;
  migMinorsPath?: string;
}

/** Finds the device nodes and libraries with which a sandbox can use a card. */
export class GpuDevices {
  readonly #options: GpuDevicesOptions;
  #libraries: GpuAccess['libraries'] = [];

  constructor(options: GpuDevicesOptions) {
    this.#options = options;
  }

  /** Looks where the driver's libraries are. Safe to call again. */
  async look(): Promise<void> {
    const { searchPath } = this.#options;
    const tool = await findExecutable('ldconfig', `${searchPath}:/usr/sbin:/sbin`);
    const listed = tool === undefined ? undefined : await runTool(tool, ['-p'], TIMEOUT_MS);
    const path = LIBRARY.exec(listed ?? '')?.[1];
    const directory = path === undefined ? '/usr' : dirname(path);
    this.#libraries = SYSTEM.test(directory) ? [] : [{ source: directory, target: directory, writable: false }];
  }

  /** What attempts with these cards get; a text says why they cannot have it. */
  access(uuids: readonly string[]): GpuAccess | string {
    try {
      const names = new Set([...COMMON, ...uuids.flatMap((uuid) => this.#nodesOf(uuid))]);
      for (const name of names) this.#check(name);
      for (const name of OPTIONAL) if (this.#isThere(name)) names.add(name);
      const { devRoot } = this.#options;
      const devices = [...names].map((name) => ({ source: join(devRoot, name), target: `/dev/${name}` }));
      return { uuids, devices, libraries: this.#libraries };
    } catch (error) {
      return messageOf(error);
    }
  }

  #nodesOf(uuid: string): string[] {
    const card = this.#options.cardOf(uuid);
    if (card?.minor === undefined) throw new Error(`the driver names no device node of GPU ${uuid}`);
    const node = `nvidia${card.minor}`;
    const instance = card.instances.find((one) => one.uuid === uuid);
    if (instance === undefined) return [node];
    const { gpuInstance, computeInstance } = instance;
    const part = `gpu${card.minor}/gi${gpuInstance}`;
    return [node, this.#capability(`${part}/access`), this.#capability(`${part}/ci${computeInstance}/access`)];
  }

  #capability(name: string): string {
    const path = this.#options.migMinorsPath ?? MIG_MINORS;
    const line = readFileSync(path, 'utf8')
      .split('\n')
      .find((one) => one.startsWith(`${name} `));
    if (line === undefined) throw new Error(`${path} has no ${name}`);
    return `nvidia-caps/nvidia-cap${line.slice(name.length).trim()}`;
  }

  #check(name: string): void {
    if (this.#isThere(name)) return;
    const path = join(this.#options.devRoot, name);
    throw new Error(`there is no device node ${path}; nvidia-modprobe makes it (nvidia-modprobe -c 0 -u)`);
  }

  #isThere(name: string): boolean {
    return statSync(join(this.#options.devRoot, name), { throwIfNoEntry: false })?.isCharacterDevice() === true;
  }
}
