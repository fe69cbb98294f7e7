import { mib, spaceOf } from './disk.ts';

/**
 * Why no image can be fetched; undefined when one can, and where the engine's disk cannot be seen from here (an agent that runs
 * in a container itself): then the engine says so. At once.
 * @param dataDir where the engine keeps images
 * @param minFreeBytes what stays free on that disk
 */
export function whyNoRoomForImages(dataDir: string, minFreeBytes: number): string | undefined {
  const freeBytes = freeBytesOf(dataDir);
  if (freeBytes === undefined || freeBytes >= minFreeBytes) return undefined;
  return `${mib(freeBytes)} MiB free of ${mib(minFreeBytes)} MiB needed on the disk of ${dataDir}`;
}

function freeBytesOf(directory: string): number | undefined {
  try {
    return spaceOf(directory).freeBytes;
  } catch {
    return undefined;
  }
}
