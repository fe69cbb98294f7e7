import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LogStream } from './log-stream.ts';

/** What happens between an agent that has a log and a control plane that stores it. */
type Step =
  /** The code prints. */
  | { kind: 'print'; bytes: number }
  /** The agent sends what it has not sent over this link, in messages of that size. */
  | { kind: 'send'; bytes: number }
  /** So many messages under way arrive. */
  | { kind: 'arrive'; messages: number }
  /** The control plane begins to write so many bytes. */
  | { kind: 'write'; bytes: number }
  /** The oldest write is committed and acknowledged, or is committed and the acknowledgement never comes. */
  | { kind: 'commit'; told: boolean }
  /** The link breaks: what is under way is gone; the next one begins behind what is stored, here or at another replica. */
  | { kind: 'relink' }
  /** The agent's process dies: it begins where the control plane says. */
  | { kind: 'restart' };

const size = fc.integer({ min: 1, max: 40 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('print' as const), bytes: size }),
  fc.record({ kind: fc.constant('send' as const), bytes: size }),
  fc.record({ kind: fc.constant('arrive' as const), messages: fc.integer({ min: 1, max: 5 }) }),
  fc.record({ kind: fc.constant('write' as const), bytes: size }),
  fc.record({ kind: fc.constant('commit' as const), told: fc.boolean() }),
  fc.constant({ kind: 'relink' } as const),
  fc.constant({ kind: 'restart' } as const),
);

test('whatever is lost, sent twice or stored twice on the way, the log is there once, from the first byte to the last', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const world = new World();
      for (const next of steps) world.take(next);
      expect(world.read()).toEqual(world.printed.subarray(0, world.read().length));
      world.finish();
      expect(world.read()).toEqual(world.printed);
    }),
    { numRuns: 5000 },
  );
});

/** The agent's half and the table are models; the control plane's half is the real one. */
class World {
  printed = Buffer.alloc(0);
  /** By offset, as the key of the table has it: of two chunks that begin at the same byte the longer one stays. */
  readonly #rows = new Map<number, Buffer>();
  #stream = new LogStream(0);
  #sent = 0;
  #underWay: { offset: number; data: Buffer }[] = [];
  #writes: { stream: LogStream; offset: number; data: Buffer }[] = [];

  take(step: Step): void {
    switch (step.kind) {
      case 'print': {
        const start = this.printed.length;
        this.printed = Buffer.concat([
          this.printed,
          Buffer.from(Array.from({ length: step.bytes }, (_, i) => (start + i) & 0xff)),
        ]);
        return;
      }
      case 'send':
        for (; this.#sent < this.printed.length; this.#sent += step.bytes) {
          this.#underWay.push({ offset: this.#sent, data: this.printed.subarray(this.#sent, this.#sent + step.bytes) });
        }
        this.#sent = this.printed.length;
        return;
      case 'arrive':
        for (const { offset, data } of this.#underWay.splice(0, step.messages)) {
          expect(this.#stream.append(offset, data)).toBe(true);
        }
        return;
      case 'write':
        for (const piece of this.#stream.take(step.bytes)) {
          this.#writes.push({ stream: this.#stream, offset: piece.offset, data: Buffer.from(piece.data) });
        }
        return;
      case 'commit': {
        const write = this.#writes.shift();
        if (write === undefined) return;
        const before = this.#rows.get(write.offset)?.length ?? 0;
        if (before < write.data.length) this.#rows.set(write.offset, write.data);
        if (step.told) write.stream.markStored(write.offset + write.data.length);
        return;
      }
      case 'relink':
      case 'restart':
        this.#underWay = [];
        // The writes of the former replica may still come to an end, beside those of the new one.
        this.#stream = new LogStream(this.#stored());
        this.#sent = this.#stored();
    }
  }

  /** Nothing fails any more: what is there must do, without a new link that would find a gap. */
  finish(): void {
    this.take({ kind: 'send', bytes: 7 });
    this.take({ kind: 'arrive', messages: Number.MAX_SAFE_INTEGER });
    this.take({ kind: 'write', bytes: Number.MAX_SAFE_INTEGER });
    while (this.#writes.length > 0) this.take({ kind: 'commit', told: true });
  }

  /** As readers put the rows together: from the first byte on, without a gap, what overlaps once. */
  read(): Buffer {
    const parts: Buffer[] = [];
    let end = 0;
    for (const [offset, data] of [...this.#rows].toSorted(([a], [b]) => a - b)) {
      if (offset > end) break;
      const fresh = data.subarray(end - offset);
      parts.push(fresh);
      end += fresh.length;
    }
    return Buffer.concat(parts);
  }

  #stored(): number {
    return this.read().length;
  }
}
