const CARD = /^GPU \d+: .*\(UUID: (GPU-[^)]+)\)/;
const INSTANCE = /^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)/;

/** A MIG instance as `nvidia-smi -L` lists it. */
export interface ListedInstance {
  cardUuid: string;
  index: number;
  uuid: string;
  profile: string;
}

/** Reads the answer of `nvidia-smi -L`: the only one that has the UUIDs of MIG instances. */
export function parseNvidiaList(text: string): ListedInstance[] {
  const found: ListedInstance[] = [];
  let cardUuid = '';
  for (const line of text.split('\n')) {
    cardUuid = CARD.exec(line)?.[1] ?? cardUuid;
    const [, profile = '', index = '', uuid = ''] = INSTANCE.exec(line) ?? [];
    if (uuid !== '') found.push({ cardUuid, index: Number(index), uuid, profile });
  }
  return found;
}
