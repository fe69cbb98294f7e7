/** Which cards the agent gives to executions: HARRIER_AGENT_GPUS. */
export type GpuSelection = 'all' | 'none' | ReadonlySet<string>;

export const GPUS_SETTING = 'HARRIER_AGENT_GPUS';
/** As the driver gives them, also the old form of MIG instances: `MIG-GPU-…/3/0`. */
const UUID = /^(GPU|MIG)-[0-9a-zA-Z/-]+$/;

/** @returns undefined when the text is neither `all`, `none`, nor UUIDs with commas */
export function parseGpuSelection(text: string): GpuSelection | undefined {
  if (text === 'all' || text === 'none') return text;
  const uuids = text.split(',').map((part) => part.trim());
  return uuids.every((uuid) => UUID.test(uuid)) ? new Set(uuids) : undefined;
}

/** Whether the setting alone says that executions get a card or an instance; `all`: any. */
export function isNamed(selection: GpuSelection, uuid: string): boolean {
  if (typeof selection === 'string') return selection === 'all';
  return uuid === 'all' || selection.has(uuid);
}

/** Whether a card or an instance is given; a card that is named stands for its instances. */
export function isSelected(selection: GpuSelection, uuid: string, cardUuid: string): boolean {
  if (typeof selection === 'string') return selection === 'all';
  return selection.has(uuid) || selection.has(cardUuid);
}

/** Whose parts MIG instances are. */
export interface Parts {
  /** The card that is one or has one as a part. */
  cardOf(uuid: string): { uuid: string } | undefined;
  /** The driver has told the instances of all cards: one that `cardOf` does not know is not there. */
  readonly knowsInstances: boolean;
}

/**
 * Whether executions can get a card or an instance, a part of it, or what it is a part of; `all`: any.
 * @returns undefined when it is not known yet whose part an instance is
 */
export function isShared(selection: GpuSelection, uuid: string, parts: Parts): boolean | undefined {
  if (isNamed(selection, uuid)) return true;
  if (typeof selection === 'string') return false;
  // Two cards, or two instances, have no part in common.
  const others = [...selection].filter((other) => isCard(other) !== isCard(uuid));
  if (others.length === 0) return false;
  const cards = isCard(uuid) ? [uuid] : others;
  const instances = isCard(uuid) ? others : [uuid];
  const owners = instances.map((instance) => parts.cardOf(instance)?.uuid);
  if (owners.some((owner) => owner !== undefined && cards.includes(owner))) return true;
  return parts.knowsInstances || !owners.includes(undefined) ? false : undefined;
}

function isCard(uuid: string): boolean {
  return uuid.startsWith('GPU-');
}
