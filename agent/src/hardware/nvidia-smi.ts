import { messageOf } from '@harrier/shared';
import { findExecutable } from './find-executable.ts';
import type { NvidiaCard, NvidiaReading } from './nvidia-card.ts';
import { type CardFigures, FIGURES_QUERY, parseFigures } from './nvidia-figures.ts';
import { parseNvidiaList } from './nvidia-list.ts';
import { parseNvidiaXml } from './nvidia-xml.ts';
import { askTool, type ToolAnswer } from './run-tool.ts';

/** A host with eight cards and no persistence daemon takes three seconds. */
const TIMEOUT_MS = 8_000;
/** Eight cards take 1 MiB, most of it clocks. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;
const NO_CARD = /no devices were found/i;
const UNKNOWN_FIELD = /not a valid field/i;
const SHOWN_CHARS = 300;

/** How the driver has answered. */
export type NvidiaAnswer<T> =
  /** This host has no nvidia-smi: none of its cards is one of NVIDIA's, or none has a driver. */
  | { kind: 'absent' }
  /** `complaint`: what the tool has said beside it, for example of a card that does not answer; empty: nothing. */
  | { kind: 'answered'; value: T; complaint: string }
  /** Nothing is known of any card now. */
  | { kind: 'silent'; reason: string };

/** The driver's tool, asked for one thing at a time. It may hang, print garbage, or fail because of one card of many. */
export class NvidiaSmi {
  readonly #searchPath: string;
  readonly #timeoutMs: number;
  /** Set while a process of it hangs that could not be killed: another one would hang beside it. */
  #stuckSince: Date | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  /** @param searchPath where it is looked for, as in PATH */
  constructor(searchPath: string, timeoutMs = TIMEOUT_MS) {
    this.#searchPath = searchPath;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Everything of all cards. Never rejects.
   * @param known cards that were there before: where one of them spoils the answer, the others are asked for one by one
   */
  look(known: readonly Pick<NvidiaCard, 'uuid' | 'index'>[]): Promise<NvidiaAnswer<NvidiaReading>> {
    return this.#inTurn(async (tool) => {
      const all = readingOf(await this.#ask(tool, ['-q', '-x']));
      const answer = all.kind === 'silent' && !this.#isStuck ? await this.#oneByOne(tool, known, all.reason) : all;
      if (answer.kind === 'answered') await this.#nameInstances(tool, answer.value);
      return answer;
    });
  }

  /** What changes all the time; `unsupported`: this driver is too old for it. Never rejects. */
  figures(): Promise<NvidiaAnswer<CardFigures[] | 'unsupported'>> {
    return this.#inTurn<CardFigures[] | 'unsupported'>(async (tool) => {
      const answer = await this.#ask(tool, FIGURES_QUERY);
      const said = answer.kind === 'ended' ? answer.output + answer.errors : '';
      if (UNKNOWN_FIELD.test(said)) return { kind: 'answered', value: 'unsupported', complaint: '' };
      const value = answer.kind === 'ended' ? parseFigures(answer.output) : [];
      if (value.length === 0 && !NO_CARD.test(said)) return { kind: 'silent', reason: failureOf(answer) };
      return { kind: 'answered', value, complaint: complaintIn(answer, /^\d+, GPU-/) };
    });
  }

  get #isStuck(): boolean {
    return this.#stuckSince !== undefined;
  }

  /** One question at a time: a driver that is slow is not made slower. */
  #inTurn<T>(ask: (tool: string) => Promise<NvidiaAnswer<T>>): Promise<NvidiaAnswer<T>> {
    const answer = this.#queue.then(async (): Promise<NvidiaAnswer<T>> => {
      const tool = await findExecutable('nvidia-smi', this.#searchPath);
      return tool === undefined ? { kind: 'absent' } : await ask(tool);
    });
    this.#queue = answer.catch(() => {});
    return answer;
  }

  async #ask(tool: string, args: readonly string[]): Promise<ToolAnswer | { kind: 'stuck'; since: Date }> {
    if (this.#stuckSince !== undefined) return { kind: 'stuck', since: this.#stuckSince };
    const answer = await askTool(tool, args, this.#timeoutMs, MAX_OUTPUT_BYTES);
    if (answer.kind === 'hangs') {
      this.#stuckSince = new Date();
      void answer.gone.then(() => {
        this.#stuckSince = undefined;
      });
      // One that can be killed is gone in a moment.
      await Promise.race([answer.gone, new Promise((resolve) => setTimeout(resolve, 100).unref())]);
    }
    return answer;
  }

  /** A card that has left the bus makes some drivers refuse the whole answer. */
  async #oneByOne(
    tool: string,
    known: readonly Pick<NvidiaCard, 'uuid' | 'index'>[],
    reason: string,
  ): Promise<NvidiaAnswer<NvidiaReading>> {
    const whole: NvidiaReading = { driverVersion: '', cudaVersion: '', cards: [], lost: [] };
    for (const { uuid, index } of known) {
      const answer = readingOf(await this.#ask(tool, ['-i', uuid, '-q', '-x']));
      if (answer.kind !== 'answered') continue;
      const { driverVersion, cudaVersion, cards } = answer.value;
      Object.assign(whole, { driverVersion, cudaVersion });
      whole.cards.push(...cards.filter((card) => card.uuid === uuid).map((card) => ({ ...card, index })));
    }
    if (whole.cards.length === 0) return { kind: 'silent', reason };
    return { kind: 'answered', value: whole, complaint: reason };
  }

  async #nameInstances(tool: string, { cards }: NvidiaReading): Promise<void> {
    const divided = cards.filter(({ instances }) => instances.length > 0);
    if (divided.length === 0) return;
    const answer = await this.#ask(tool, ['-L']);
    const listed = answer.kind === 'ended' ? parseNvidiaList(answer.output) : [];
    for (const { uuid, instances } of divided) {
      for (const instance of instances) {
        const found = listed.find(({ cardUuid, index }) => cardUuid === uuid && index === instance.index);
        if (found !== undefined) Object.assign(instance, { uuid: found.uuid, profile: found.profile });
      }
    }
  }
}

type Asked = ToolAnswer | { kind: 'stuck'; since: Date };

function readingOf(answer: Asked): NvidiaAnswer<NvidiaReading> & { kind: 'answered' | 'silent' } {
  if (answer.kind !== 'ended') return { kind: 'silent', reason: failureOf(answer) };
  if (!answer.output.includes('<nvidia_smi_log') && NO_CARD.test(answer.output + answer.errors)) {
    const value = { driverVersion: '', cudaVersion: '', cards: [], lost: [] };
    return { kind: 'answered', value, complaint: '' };
  }
  try {
    // An exit code that is not 0 may concern one card of many.
    const value = parseNvidiaXml(answer.output);
    return { kind: 'answered', value, complaint: complaintIn(answer, /^\s*</) };
  } catch (error) {
    if (answer.code !== 0) return { kind: 'silent', reason: failureOf(answer) };
    return { kind: 'silent', reason: `nvidia-smi printed what cannot be read: ${messageOf(error)}` };
  }
}

/** What it says beside its answer, whose lines look like `expected`. */
function complaintIn(answer: Asked, expected: RegExp): string {
  if (answer.kind !== 'ended') return '';
  const before = answer.output
    .split('\n', 20)
    .filter((line) => /unable|error|lost/i.test(line) && !expected.test(line));
  return oneLine([...before, answer.errors].join(' '));
}

function failureOf(answer: Asked): string {
  switch (answer.kind) {
    case 'hangs':
      return 'nvidia-smi did not answer in time';
    case 'stuck':
      return `an nvidia-smi hangs since ${answer.since.toISOString()} and cannot be killed`;
    case 'missing':
      return 'nvidia-smi could not be started';
    case 'too-much':
      return `nvidia-smi printed more than ${MAX_OUTPUT_BYTES / 1024 / 1024} MiB`;
    default: {
      const how = answer.code === undefined ? 'was killed' : `ended with exit code ${answer.code}`;
      return `nvidia-smi ${how}: ${oneLine(answer.output + answer.errors) || 'it says nothing'}`;
    }
  }
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s+/g, ' ').slice(0, SHOWN_CHARS);
}
