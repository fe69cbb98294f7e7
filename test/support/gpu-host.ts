import { chmodSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AgentOptions } from './agent.ts';
import { directory } from './workspace.ts';

/**
 * Devices that are on every host and may be opened by everybody stand in for cards: each is another one for the kernel, so
 * that whoever locks it (flock) finds out who else uses it.
 */
const DEVICES = ['zero', 'full', 'random', 'urandom'];
/** What every program that uses a card opens. */
const COMMON = ['nvidiactl', 'nvidia-uvm'];

/** A host with stand-in cards: a driver's tool that knows the real processes that use them, and their device nodes. */
export class GpuHost {
  readonly uuids: readonly string[];
  readonly #bin = directory('gb');
  readonly #devices = directory('gd');

  constructor(cards = DEVICES.length) {
    this.uuids = DEVICES.slice(0, cards).map((_, n) => `GPU-${n}0000000-0000-4000-8000-000000000000`);
    for (const name of COMMON) symlinkSync('/dev/null', join(this.#devices, name));
    for (const [n] of this.uuids.entries()) symlinkSync(`/dev/${DEVICES[n]}`, join(this.#devices, `nvidia${n}`));
    const path = join(this.#bin, 'nvidia-smi');
    writeFileSync(path, this.#tool());
    chmodSync(path, 0o755);
  }

  /** What an agent on this host is started with. */
  get agent(): Partial<AgentOptions> {
    const path = `${this.#bin}:${process.env.PATH ?? '/usr/bin:/bin'}`;
    return { env: { PATH: path, HARRIER_AGENT_GPU_DEV_ROOT: this.#devices } };
  }

  /** Where they are on another host, which may write to the first of them: to reset a card takes away what is left on it. */
  get elsewhere(): { bin: string; devices: string; binds: Record<string, string> } {
    const [bin, devices] = ['/opt/gpu/bin', '/opt/gpu/dev'] as const;
    return { bin, devices, binds: { [bin]: this.#bin, [devices]: this.#devices } };
  }

  /** The driver does not list the card any more. */
  lose(uuid: string, lost = true): void {
    const mark = join(this.#bin, `lost-${uuid}`);
    if (lost) writeFileSync(mark, '');
    else rmSync(mark, { force: true });
  }

  /** A process that nobody has started stays on the card. */
  dirty(uuid: string, dirty = true): void {
    const mark = join(this.#bin, `dirty-${uuid}`);
    if (dirty) writeFileSync(mark, '');
    else rmSync(mark, { force: true });
  }

  /** The driver does not answer. */
  hang(hangs = true): void {
    if (hangs) writeFileSync(join(this.#bin, 'hangs'), '');
    else rmSync(join(this.#bin, 'hangs'), { force: true });
  }

  /** A card is in use by the processes that were started to use it: their variables say so. */
  #tool(): string {
    const each = (lines: (uuid: string, n: number) => string) =>
      this.uuids.map((uuid, n) => `if [ ! -e "$here/lost-${uuid}" ]; then\n${lines(uuid, n)}\nfi`).join('\n');
    return `#!/bin/sh
here=$(dirname "$0")
[ -e "$here/hangs" ] && exec sleep 1000
pids() {
  grep -lszE "^CUDA_VISIBLE_DEVICES=.*$1" /proc/[0-9]*/environ | cut -d/ -f3
  [ -e "$here/dirty-$1" ] && echo 4711
}
complain() {
  for mark in "$here"/lost-*; do
    [ -e "$mark" ] && echo "Unable to determine the device handle for a GPU: Unknown Error" >&2
  done
}
complain
case "$*" in
*--query-gpu*)
${each((uuid, n) => `echo "${n}, ${uuid}, $(($(pids ${uuid} | wc -l) * 400 + 4)), 0, 30, 75.0, 700.0, 0"`)}
  ;;
*--gpu-reset*)
  for uuid in "$@"; do
    [ -e "$here/dirty-$uuid" ] && rm "$here/dirty-$uuid" && echo "GPU $uuid was successfully reset."
  done
  echo 'All done.'
  ;;
*)
  echo '<nvidia_smi_log><driver_version>570.86.15</driver_version><cuda_version>12.8</cuda_version>'
${each(
  (uuid, n) => `
  using=$(pids ${uuid})
  echo '<gpu id="00000000:0${n}:00.0"><product_name>NVIDIA Stand-In</product_name><uuid>${uuid}</uuid>'
  echo '<minor_number>${n}</minor_number><mig_mode><current_mig>N/A</current_mig></mig_mode>'
  echo "<fb_memory_usage><total>8192 MiB</total><used>$(($(echo $using | wc -w) * 400 + 4)) MiB</used></fb_memory_usage>"
  echo '<processes>'
  for pid in $using; do
    echo "<process_info><pid>$pid</pid><type>C</type><process_name>job</process_name><used_memory>400 MiB</used_memory></process_info>"
  done
  echo '</processes></gpu>'`,
)}
  echo '</nvidia_smi_log>'
  ;;
esac
`;
  }
}
