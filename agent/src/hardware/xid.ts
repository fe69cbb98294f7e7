/** An error of a card in the kernel's log: "Xid" of NVIDIA's driver. */
export interface XidEvent {
  code: number;
  /** The card, in the form of `pciKey`. */
  pci: string;
  /** Microseconds since the boot. */
  atUs: number;
  /** The driver's words. */
  text: string;
}

/**
 * Errors after which the card itself needs attention: NVIDIA's catalogue has a reset, a reboot or a repair for them
 * (docs.nvidia.com/deploy/xid-errors). The others are the program's (13, 31, 43, 45, 94, …), or only told.
 */
const FATAL: ReadonlyMap<number, string> = new Map([
  [46, 'the GPU stopped processing'],
  [48, 'a memory error that cannot be corrected'],
  [54, 'no auxiliary power'],
  [61, 'a microcontroller halted'],
  [62, 'a microcontroller halted'],
  [64, 'a row of memory could not be remapped'],
  [74, 'an error of NVLink'],
  [79, 'the GPU has fallen off the bus'],
  [95, 'a memory error that was not contained'],
  [109, 'a context switch timed out'],
  [110, 'a security fault'],
  [119, 'the GPU system processor does not answer'],
  [120, 'the GPU system processor failed'],
  [121, 'an error of the chip-to-chip link'],
  [136, 'an error of the link training'],
  [140, 'memory errors that were not recovered'],
  [143, 'the GPU could not be initialised'],
  [155, 'a link went down that must be up'],
  [156, 'resources were retired'],
  [158, 'a fatal timeout of the GPU'],
]);
const LINE = /NVRM: Xid \(PCI:([0-9a-f]+:[0-9a-f]+:[0-9a-f]+)(?:\.\d)?\): (\d+)(?:, (.*))?$/i;
/** Announces what the driver wants done: nothing, or a reset. */
const RECOVERY_ACTION = 154;

/** @param line as in /dev/kmsg: `priority,sequence,microseconds,flags;text` */
export function parseXid(line: string): XidEvent | undefined {
  const separator = line.indexOf(';');
  const [, pci = '', code = '', text = ''] = LINE.exec(line.slice(separator + 1).trimEnd()) ?? [];
  if (code === '') return undefined;
  const atUs = Number(line.slice(0, Math.max(0, separator)).split(',')[2]);
  return { code: Number(code), pci: pciKey(pci), atUs: Number.isFinite(atUs) ? atUs : 0, text };
}

/** Why the card is not fit for use after it; undefined: it is. */
export function fatalXid({ code, text }: XidEvent): string | undefined {
  if (code === RECOVERY_ACTION) return /\(None\)\s*$/.test(text) ? undefined : `Xid ${code}: ${text}`;
  const meaning = FATAL.get(code);
  return meaning === undefined ? undefined : `Xid ${code}: ${meaning}${text === '' ? '' : ` (${text})`}`;
}

/** The same for `00000000:3B:00.0` of nvidia-smi and `0000:3b:00` of the kernel. */
export function pciKey(id: string): string {
  const [domain = '', bus = '', device = ''] = id.split(':');
  return [domain, bus, device.split('.')[0] ?? ''].map((part) => Number.parseInt(part, 16)).join(':');
}
