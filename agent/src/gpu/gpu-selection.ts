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

/** Whether a card or an instance is given; a card that is named stands for its instances. */
export function isSelected(selection: GpuSelection, uuid: string, cardUuid: string): boolean {
  if (typeof selection === 'string') return selection === 'all';
  return selection.has(uuid) || selection.has(cardUuid);
}
