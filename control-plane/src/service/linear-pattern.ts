import { messageOf } from '@harrier/shared';
import { RE2JS } from 're2js';

/** A regular expression that is not one, or that cannot be matched in linear time. */
export class PatternError extends Error {
  readonly pattern: string;

  constructor(pattern: string, message: string) {
    super(message);
    this.name = 'PatternError';
    this.pattern = pattern;
  }
}

/**
 * Compiles an ECMA-262 regular expression (flag `u`) for matching in time that grows linearly with the text, as RE2 does
 * (Cox, "Regular Expression Matching Can Be Simple And Fast"): the engine of JavaScript takes exponential time for some.
 * @throws PatternError also for what RE2 has not: look-around, backreferences, repetitions of more than 1,000.
 */
export function compilePattern(pattern: string): { test(text: string): boolean } {
  try {
    // Neither engine's own extensions: what both of them take means the same to both.
    new RegExp(pattern, 'u');
  } catch (error) {
    throw new PatternError(pattern, messageOf(error));
  }
  for (const [text] of pattern.matchAll(/\\./gsu)) {
    // RE2 would take it for the letter.
    if (text === '\\k') throw new PatternError(pattern, 'backreferences are not supported');
  }
  try {
    return RE2JS.compile(RE2JS.translateRegExp(joinSurrogates(pattern)));
  } catch (error) {
    const reason = messageOf(error).replace(/^error parsing regexp: /, '');
    throw new PatternError(pattern, `${reason}; patterns are limited to what RE2 supports`);
  }
}

/** `\ud83d\ude00` is one character to ECMA-262, and two that never occur to RE2. */
function joinSurrogates(pattern: string): string {
  return pattern.replaceAll(/\\u(d[89ab]..)\\u(d[c-f]..)/gi, (_, high: string, low: string) => {
    const text = String.fromCharCode(Number.parseInt(high, 16), Number.parseInt(low, 16));
    return `\\u{${text.codePointAt(0)?.toString(16)}}`;
  });
}
