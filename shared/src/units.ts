const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const BYTES: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** `90`, `90s`, `1.5m`, `2h`, `1d`, `500ms`; a bare number is seconds. @returns milliseconds; undefined when it is none. */
export function parseDurationMs(text: string): number | undefined {
  const match = /^(?<amount>\d+(\.\d+)?) *(?<unit>ms|s|m|h|d)?$/.exec(text.trim());
  if (match?.groups === undefined) return undefined;
  return Math.round(Number(match.groups.amount) * (DURATION_MS[match.groups.unit ?? 's'] ?? 0));
}

/** `1048576`, `512KiB`, `1.5GiB`. @returns whole bytes; undefined when it is none. */
export function parseBytes(text: string): number | undefined {
  const match = /^(?<amount>\d+(\.\d+)?) *(?<unit>B|KiB|MiB|GiB)?$/.exec(text.trim());
  if (match?.groups === undefined) return undefined;
  const bytes = Number(match.groups.amount) * (BYTES[match.groups.unit ?? 'B'] ?? 0);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
