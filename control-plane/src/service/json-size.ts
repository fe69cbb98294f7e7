/**
 * Most values of a JSON text that becomes a message, and most objects, arrays and members of objects of one that stays a
 * text. Everybody waits while one of them is read: values of a message cost up to 3 µs each, and members 2 µs, since each
 * object with other keys is another shape to the engine.
 */
export const MAX_JSON_VALUES = 200_000;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;

/**
 * Whether a text has more than so many objects, arrays, and of what `separator` says: `,` for values of both, `:` for members
 * of objects. One look at each character and no memory; says nothing about whether the text is JSON.
 */
export function holdsMoreThan(max: number, text: string, separator: ',' | ':'): boolean {
  if (text.length <= max) return false;
  const counted = separator === ',' ? COMMA : COLON;
  let found = 0;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === QUOTE) i = endOfString(text, i);
    else if (char === counted || char === OPEN_BRACKET || char === OPEN_BRACE) {
      if (++found > max) return true;
    }
  }
  return false;
}

/** @param start position of the opening quote */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  for (; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === QUOTE) break;
    if (char === BACKSLASH) at++;
  }
  return at;
}
