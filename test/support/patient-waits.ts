import { vi } from 'vitest';
import { DEADLINE_MS } from './wait.ts';

/** What is waited for comes late on a busy machine: the second after which these give up by default says nothing of the code. */
const { waitFor, waitUntil } = vi;
vi.waitFor = (callback, options) => waitFor(callback, patient(options));
vi.waitUntil = (callback, options) => waitUntil(callback, patient(options));

function patient<T extends object>(options: number | T | undefined): number | (T & { timeout: number }) {
  if (typeof options === 'number') return options;
  return { timeout: DEADLINE_MS, ...(options as T) };
}
