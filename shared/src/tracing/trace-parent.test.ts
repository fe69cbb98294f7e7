import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatTraceParent, parseTraceParent } from './trace-parent.ts';
import { NO_TRACING } from './tracing.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';

test('what is written is read again', () => {
  const id = (digits: number) =>
    fc
      .array(fc.constantFrom(...'0123456789abcdef'), { minLength: digits, maxLength: digits })
      .map((parts) => parts.join(''))
      .filter((text) => /[^0]/.test(text));
  fc.assert(
    fc.property(id(32), id(16), fc.boolean(), (traceId, spanId, sampled) => {
      expect(parseTraceParent(formatTraceParent({ traceId, spanId, sampled }))).toEqual({ traceId, spanId, sampled });
    }),
  );
});

test.each([
  ['nothing', undefined],
  ['an empty text', ''],
  ['another form', 'abc'],
  ['capitals', `00-${TRACE.toUpperCase()}-${SPAN}-01`],
  ['a trace without an id', `00-${'0'.repeat(32)}-${SPAN}-01`],
  ['a span without an id', `00-${TRACE}-${'0'.repeat(16)}-01`],
  ['the forbidden version', `ff-${TRACE}-${SPAN}-01`],
  ['more than version 00 has', `00-${TRACE}-${SPAN}-01-more`],
])('%s is no place in a trace', (_, text) => {
  expect(parseTraceParent(text)).toBeUndefined();
});

test('of a version to come the known part is taken, and of the flags the one that is known', () => {
  const place = { traceId: TRACE, spanId: SPAN };
  expect(parseTraceParent(`01-${TRACE}-${SPAN}-03-more`)).toEqual({ ...place, sampled: true });
  expect(parseTraceParent(`00-${TRACE}-${SPAN}-02`)).toEqual({ ...place, sampled: false });
});

test('a process that traces nothing hands the place on', () => {
  const parent = `00-${TRACE}-${SPAN}-01`;
  expect(NO_TRACING.start('work', { parent }).traceParent).toBe(parent);
  expect(NO_TRACING.start('work', { parent: 'nonsense' }).traceParent).toBe('');
});
