import { parseXml, type XmlDocument, XmlElement } from '@rgrove/parse-xml';
import type { CardProcess, MigInstance, NvidiaCard, NvidiaFigures, NvidiaReading } from './nvidia-card.ts';

const MIB = 1024 * 1024;
const NOT_READ = [['<supported_clocks>', '</supported_clocks>']] as const;
const LOST = /\b(is lost|unknown error)\b|^ERR!$/i;

/**
 * Reads the answer of `nvidia-smi -q -x`. Drivers of all generations give it, each with a few elements more; what is not
 * there, or reads `N/A`, is undefined. What the tool complains of before it is skipped.
 * @throws Error when it is no such answer
 */
export function parseNvidiaXml(text: string): NvidiaReading {
  const begin = text.search(/<\?xml|<!DOCTYPE nvidia_smi_log|<nvidia_smi_log/);
  if (begin < 0) throw new Error('it is not its XML');
  const root = rootOf(parseXml(withoutLists(text.slice(begin))));
  if (root?.name !== 'nvidia_smi_log') throw new Error('its XML is not that of nvidia-smi');
  const all = childrenOf(root, 'gpu');
  return {
    driverVersion: read(root, 'driver_version') ?? '',
    cudaVersion: read(root, 'cuda_version') ?? '',
    cards: all.filter((gpu) => !isLost(gpu)).map(card),
    lost: all.filter(isLost).map((gpu) => gpu.attributes.id ?? ''),
  };
}

/** The clocks that a card could run at are most of the text, and nobody asks for them. */
function withoutLists(text: string): string {
  let rest = text;
  for (const [open, close] of NOT_READ) {
    for (let from = rest.indexOf(open); from >= 0; from = rest.indexOf(open, from)) {
      const to = rest.indexOf(close, from);
      if (to < 0) break;
      rest = rest.slice(0, from) + rest.slice(to + close.length);
    }
  }
  return rest;
}

/** A card that has left the bus answers every question so; the driver may list it for a while. */
function isLost(gpu: XmlElement): boolean {
  const told = [text(gpu, 'uuid'), text(gpu, 'product_name'), text(gpu, 'fb_memory_usage', 'total')];
  return !/^GPU-/.test(told[0] ?? '') || told.some((value) => LOST.test(value ?? ''));
}

function card(gpu: XmlElement, position: number): NvidiaCard {
  return {
    uuid: read(gpu, 'uuid') ?? '',
    index: position,
    minor: count(read(gpu, 'minor_number')),
    pciBusId: read(gpu, 'pci', 'pci_bus_id') ?? gpu.attributes.id ?? '',
    model: read(gpu, 'product_name') ?? '',
    memoryBytes: bytes(read(gpu, 'fb_memory_usage', 'total')),
    figures: figures(gpu),
    divided: read(gpu, 'mig_mode', 'current_mig') === 'Enabled',
    instances: childrenOf(find(gpu, 'mig_devices'), 'mig_device').map(instance),
    processes: childrenOf(find(gpu, 'processes'), 'process_info')
      .map(process)
      .filter(({ pid }) => pid > 0),
    recovery: recovery(gpu),
  };
}

function figures(gpu: XmlElement): NvidiaFigures {
  // From 530 on by card, from 560 on also on average; before by another name.
  const power = find(gpu, 'gpu_power_readings') ?? find(gpu, 'power_readings');
  const draw = ['instant_power_draw', 'power_draw', 'average_power_draw'];
  const limit = ['current_power_limit', 'enforced_power_limit', 'power_limit'];
  const utilization = quantity(read(gpu, 'utilization', 'gpu_util'));
  const memoryUsed = read(gpu, 'fb_memory_usage', 'used');
  return {
    memoryUsedBytes: memoryUsed === undefined ? undefined : bytes(memoryUsed),
    utilizationRatio: utilization === undefined ? undefined : utilization / 100,
    temperatureCelsius: quantity(read(gpu, 'temperature', 'gpu_temp')),
    powerWatts: first(draw.map((name) => quantity(read(power, name)))),
    powerLimitWatts: first(limit.map((name) => quantity(read(power, name)))),
    uncorrectedEccErrors: uncorrected(find(gpu, 'ecc_errors', 'volatile')),
  };
}

/** Before Turing one sum; since then by kind of memory, and since Hopper by how it was found. */
function uncorrected(errors: XmlElement | undefined): number | undefined {
  const names = ['sram_uncorrectable', 'sram_uncorrectable_parity', 'sram_uncorrectable_secded', 'dram_uncorrectable'];
  const told = [read(errors, 'double_bit', 'total'), ...names.map((name) => read(errors, name))].map(count);
  const known = told.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0);
}

function recovery(gpu: XmlElement): string {
  const action = read(gpu, 'gpu_recovery_action');
  if (action !== undefined && action !== 'None') return action;
  return read(gpu, 'gpu_reset_status', 'reset_required') === 'Yes' ? 'Reset' : '';
}

function instance(device: XmlElement): MigInstance {
  return {
    uuid: '',
    profile: '',
    index: count(read(device, 'index')) ?? 0,
    gpuInstance: count(read(device, 'gpu_instance_id')) ?? 0,
    computeInstance: count(read(device, 'compute_instance_id')) ?? 0,
    memoryBytes: bytes(read(device, 'fb_memory_usage', 'total')),
    memoryUsedBytes: bytes(read(device, 'fb_memory_usage', 'used')),
  };
}

function process(info: XmlElement): CardProcess {
  return {
    pid: count(read(info, 'pid')) ?? 0,
    name: read(info, 'process_name') ?? '',
    memoryBytes: bytes(read(info, 'used_memory')),
    drawsOnly: read(info, 'type') === 'G',
    gpuInstance: count(read(info, 'gpu_instance_id')),
    computeInstance: count(read(info, 'compute_instance_id')),
  };
}

// Of elements.

function rootOf(document: XmlDocument): XmlElement | undefined {
  return document.root ?? undefined;
}

function childrenOf(parent: XmlElement | undefined, name: string): XmlElement[] {
  return (parent?.children ?? []).filter(
    (node): node is XmlElement => node instanceof XmlElement && node.name === name,
  );
}

function find(parent: XmlElement | undefined, ...path: string[]): XmlElement | undefined {
  return path.reduce<XmlElement | undefined>((element, name) => childrenOf(element, name)[0], parent);
}

function text(parent: XmlElement | undefined, ...path: string[]): string | undefined {
  return find(parent, ...path)?.text.trim();
}

/** What the element says; undefined where it is missing, empty, or says that there is nothing to say. */
function read(parent: XmlElement | undefined, ...path: string[]): string | undefined {
  const value = text(parent, ...path);
  return value === undefined || /^(\[?N\/A\]?|\[?Not Supported\]?|)$/i.test(value) ? undefined : value;
}

function first(values: readonly (number | undefined)[]): number | undefined {
  return values.find((value) => value !== undefined);
}

/** `67.03 W`, `40 C`, `37 %`. */
function quantity(value: string | undefined): number | undefined {
  const number = Number.parseFloat(value ?? '');
  return Number.isFinite(number) ? number : undefined;
}

function count(value: string | undefined): number | undefined {
  return value !== undefined && /^\d+$/.test(value) ? Number(value) : undefined;
}

/** `81920 MiB`, and `6143 MB` of old drivers, which mean the same. */
function bytes(value: string | undefined): number {
  return Math.round((quantity(value) ?? 0) * MIB);
}
