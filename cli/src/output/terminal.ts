import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { stripVTControlCharacters, styleText } from 'node:util';

/** 128 + SIGPIPE: what a program ends with when its reader has gone. */
const EXIT_CLOSED_PIPE = 141;

export type Style = Parameters<typeof styleText>[0];

/** Writes to standard output; resolves when there is room for more. */
export async function write(data: string | Uint8Array): Promise<void> {
  await writeTo(process.stdout, data);
}

/** Writes to standard error; resolves when there is room for more. */
export async function writeError(data: string | Uint8Array): Promise<void> {
  await writeTo(process.stderr, data);
}

async function writeTo(stream: Writable, data: string | Uint8Array): Promise<void> {
  if (!stream.write(data)) await once(stream, 'drain');
}

/** Colour on a terminal; plain when it is none, or NO_COLOR is set. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream });
}

/**
 * Text that code has chosen, where a person reads ours: without what would move the cursor, change the terminal's title, or
 * hide what stands before it. Lines and tabs stay.
 */
export function printable(text: string): string {
  return stripVTControlCharacters(text).replace(/[^\P{Cc}\n\t]/gu, '');
}

/** A person looks at standard output. */
export function isTerminal(stream: { isTTY?: boolean } = process.stdout): boolean {
  return stream.isTTY === true;
}

/** `harrier logs ID | head` ends quietly. */
export function leaveOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(EXIT_CLOSED_PIPE);
      throw error;
    });
  }
}
