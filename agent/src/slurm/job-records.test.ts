import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cutRecords, firstRecordBytes } from './job-records.ts';

function record(header: object, body: Uint8Array): Buffer {
  const head = Buffer.from(JSON.stringify(header));
  const frame = Buffer.alloc(8 + head.length + body.length);
  frame.writeUInt32BE(head.length, 0);
  frame.writeUInt32BE(body.length, 4);
  head.copy(frame, 8);
  frame.set(body, 8 + head.length);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(frame));
  return Buffer.concat([checksum, frame]);
}

const records = fc.array(fc.record({ text: fc.string(), body: fc.uint8Array({ maxLength: 200 }) }), { maxLength: 8 });

describe('cutRecords', () => {
  test('gives what is whole, wherever the data is cut, and goes on behind it', () => {
    fc.assert(
      fc.property(records, fc.nat(), (given, cut) => {
        const written = given.map(({ text, body }) => record({ type: 'output', text }, body));
        const data = Buffer.concat(written);
        const first = cutRecords(data.subarray(0, cut % (data.length + 1)));
        const second = cutRecords(data.subarray(first.bytes));
        const all = [...first.records, ...second.records];
        expect(all.map(({ header }) => header.text)).toEqual(given.map(({ text }) => text));
        expect(all.map(({ body }) => [...body])).toEqual(given.map(({ body }) => [...body]));
        expect(first.bytes + second.bytes).toBe(data.length);
      }),
    );
  });

  test('bytes that a file server has not got yet are waited for', () => {
    const whole = record({ type: 'started' }, Buffer.from('x'));
    const late = record({ type: 'output' }, Buffer.from('later'));
    const shown = Buffer.concat([whole, late]);
    shown.fill(0, shown.length - 3);
    expect(cutRecords(shown)).toMatchObject({ records: [{ header: { type: 'started' } }], bytes: whole.length });
    expect(cutRecords(Buffer.alloc(100))).toEqual({ records: [], bytes: 0 });
  });

  test('tells how much to read for the first record', () => {
    const one = record({ type: 'output' }, Buffer.alloc(5000));
    expect(firstRecordBytes(one.subarray(0, 20))).toBe(one.length);
    expect(firstRecordBytes(Buffer.alloc(0))).toBe(12);
  });
});
