import { findExecutable } from './find-executable.ts';
import type { Gpu } from './gpu-source.ts';
import { runTool } from './run-tool.ts';

const TIMEOUT_MS = 5_000;
const QUERY = [
  '--showproductname',
  '--showuniqueid',
  '--showmeminfo',
  'vram',
  '--showuse',
  '--showtemp',
  '--showpower',
  '--showbus',
  '--showdriverversion',
  '--json',
];

type Fields = Record<string, string>;

/** AMD's cards from the driver's own tool; undefined: it is missing or does not answer. */
export async function readRocm(searchPath: string): Promise<Gpu[] | undefined> {
  const tool = await findExecutable('rocm-smi', searchPath);
  const output = tool === undefined ? undefined : await runTool(tool, QUERY, TIMEOUT_MS);
  return output === undefined ? undefined : parseRocm(output);
}

/** Reads the answer of `rocm-smi --json`, whose words differ a little between releases; undefined: it is none. */
export function parseRocm(text: string): Gpu[] | undefined {
  const report = objectIn(text);
  if (report === undefined) return undefined;
  const driverVersion = fieldOf(report.system ?? {}, /^driver version$/i) ?? '';
  return Object.entries(report)
    .filter(([name]) => /^card\d+$/.test(name))
    .map(([name, fields]) => gpu(Number(name.slice(4)), fields, driverVersion))
    .sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
}

function gpu(index: number, fields: Fields, driverVersion: string): Gpu {
  const used = fieldOf(fields, /^vram total used memory \(b\)$/i);
  const use = numberOf(fieldOf(fields, /^gpu use \(%\)$/i));
  const temperature = numberOf(fieldOf(fields, /^temperature \(sensor (edge|junction)\)/i));
  const power = numberOf(fieldOf(fields, /(graphics package|socket) power \(w\)/i));
  return {
    index,
    vendor: 'AMD',
    uuid: fieldOf(fields, /^unique id$/i) ?? '',
    model: fieldOf(fields, /^card series$/i) ?? fieldOf(fields, /^(device name|card model)$/i) ?? '',
    memoryBytes: bytes(fieldOf(fields, /^vram total memory \(b\)$/i)),
    pciBusId: fieldOf(fields, /^pci bus$/i) ?? '',
    driverVersion,
    ...(used === undefined ? {} : { memoryUsedBytes: bytes(used) }),
    ...(use === undefined ? {} : { utilizationRatio: use / 100 }),
    ...(temperature === undefined ? {} : { temperatureCelsius: temperature }),
    ...(power === undefined ? {} : { powerWatts: power }),
  };
}

/** The tool may print warnings before and behind it. */
function objectIn(text: string): Record<string, Fields> | undefined {
  try {
    const value: unknown = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1));
    return typeof value === 'object' && value !== null ? (value as Record<string, Fields>) : undefined;
  } catch {
    return undefined;
  }
}

function fieldOf(fields: Fields, name: RegExp): string | undefined {
  const value = Object.entries(fields).find(([key]) => name.test(key))?.[1];
  return value === undefined || value === 'N/A' || value === '' ? undefined : String(value);
}

function numberOf(text: string | undefined): number | undefined {
  const value = Number(text ?? Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}

function bytes(text: string | undefined): bigint {
  return BigInt(Math.round(numberOf(text) ?? 0));
}
