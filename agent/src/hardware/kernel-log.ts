import { close, constants, open, read } from 'node:fs';
import { promisify } from 'node:util';
import { type Logger, messageOf } from '@harrier/shared';
import { findExecutable } from './find-executable.ts';
import { askTool, type ToolAnswer } from './run-tool.ts';
import { parseXid, type XidEvent } from './xid.ts';

const openFile = promisify(open);
const readFile = promisify(read);
const closeFile = promisify(close);

const KMSG = '/dev/kmsg';
/** The longest record of the kernel, with its dictionary. */
const RECORD_BYTES = 8 * 1024;
const TIMEOUT_MS = 5_000;
/** It starts a process and searches the whole boot. */
const JOURNAL_EVERY_MS = 60_000;
/** More than 100,000 errors: a program that faults in a loop makes thousands. */
const JOURNAL_BYTES = 16 * 1024 * 1024;
/** The newest, where there are more than that. */
const NEWEST_ENTRIES = 1_000;
const CURSOR = /^-- cursor: (.+)$/m;

export interface KernelLogOptions {
  /** Where tools are looked for, as in PATH. */
  searchPath: string;
  /** In the form of /dev/kmsg. */
  path?: string;
  logger: Logger;
}

/** The errors of cards in the kernel's log. Reading it takes a privilege; without it the journal is asked. */
export class KernelLog {
  readonly #options: KernelLogOptions;
  #fd: number | undefined;
  #rest = '';
  #journalDueMs = 0;
  /** Where the journal was read to. */
  #cursor: string | undefined;
  #toldUnreadable = false;
  #closed = false;

  constructor(options: KernelLogOptions) {
    this.#options = options;
  }

  /**
   * What has come since the call before, and maybe more, in order; the first time everything since the boot, as far as it
   * is kept.
   * @returns undefined when the log cannot be read here, which is logged once
   */
  async news(): Promise<XidEvent[] | undefined> {
    if (this.#closed) return [];
    const buffer = Buffer.alloc(RECORD_BYTES);
    const found: XidEvent[] = [];
    try {
      // Not blocking: at its end the log would be waited for.
      this.#fd ??= await openFile(this.#options.path ?? KMSG, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      return await this.#journal(messageOf(error));
    }
    while (!this.#closed) {
      const length = await this.#record(this.#fd, buffer);
      if (length === 0) break;
      found.push(...this.#lines(buffer.toString('utf8', 0, length)));
    }
    return found;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#fd !== undefined) await closeFile(this.#fd);
    this.#fd = undefined;
  }

  /** Bytes of the next record; 0 when there is none yet. */
  async #record(fd: number, buffer: Buffer): Promise<number> {
    while (true) {
      try {
        return (await readFile(fd, buffer, 0, buffer.length, null)).bytesRead;
      } catch (error) {
        // The kernel has overwritten what was to be read next, and goes on with what it still has.
        if ((error as NodeJS.ErrnoException).code !== 'EPIPE') return 0;
      }
    }
  }

  #lines(text: string): XidEvent[] {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines.map(parseXid).filter((event) => event !== undefined);
  }

  /** @param whyAsked why the kernel's own log cannot be read */
  async #journal(whyAsked: string): Promise<XidEvent[] | undefined> {
    if (performance.now() < this.#journalDueMs) return [];
    this.#journalDueMs = performance.now() + JOURNAL_EVERY_MS;
    const tool = await findExecutable('journalctl', this.#options.searchPath);
    const answer = tool === undefined ? ({ kind: 'missing' } as const) : await this.#askJournal(tool);
    if (!isRead(answer)) {
      this.#tellUnreadable(whyAsked, answer);
      return undefined;
    }
    return answer.output
      .split('\n')
      .map((line) => parseXid(asRecord(line)))
      .filter((event) => event !== undefined)
      .sort((a, b) => a.atUs - b.atUs);
  }

  /** Goes on from where it was read to; what is too much, takes too long, or is there no more is read from its end. */
  async #askJournal(tool: string): Promise<ToolAnswer> {
    const args = ['-k', '-b', '-o', 'short-monotonic', '--no-pager', '-q', '-g', 'NVRM: Xid'];
    const from = this.#cursor === undefined ? [] : ['--after-cursor', this.#cursor];
    const answer = await askTool(tool, [...args, '--show-cursor', ...from], TIMEOUT_MS, JOURNAL_BYTES);
    if (isRead(answer)) {
      this.#cursor = CURSOR.exec(answer.output)?.[1] ?? this.#cursor;
      return answer;
    }
    this.#cursor = undefined;
    // With a pattern the newest come first, so that the last cursor would be that of the oldest.
    return await askTool(tool, [...args, '-n', `${NEWEST_ENTRIES}`], TIMEOUT_MS, JOURNAL_BYTES);
  }

  #tellUnreadable(whyAsked: string, answer: ToolAnswer): void {
    if (this.#toldUnreadable) return;
    this.#toldUnreadable = true;
    const said = answer.kind === 'ended' ? `ended with ${answer.code}: ${answer.errors.trim()}` : answer.kind;
    this.#options.logger.warn(
      { kernelLog: whyAsked, journal: said },
      'errors of GPUs (Xid) are not seen, because the log of the kernel cannot be read: put the user of the agent into the group systemd-journal, and start the agent anew',
    );
  }
}

/** Without an entry that matches the journal's tool ends with 1, and says nothing. */
function isRead(answer: ToolAnswer): answer is ToolAnswer & { kind: 'ended' } {
  return answer.kind === 'ended' && (answer.code === 0 || answer.errors === '');
}

/** `[ 1234.567890] host kernel: text` as /dev/kmsg has it. */
function asRecord(line: string): string {
  const [, seconds = '0', text = ''] = /^\[\s*([\d.]+)\] \S+ kernel: (.*)$/.exec(line) ?? [];
  return `0,0,${Math.round(Number(seconds) * 1e6)},-;${text}`;
}
