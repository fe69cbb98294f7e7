import { describe, expect, it } from 'vitest';
import { parseBytes, parseDurationMs } from './units.ts';

describe('parseDurationMs', () => {
  it.each([
    ['90', 90_000],
    ['90s', 90_000],
    ['500ms', 500],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['1d', 86_400_000],
    ['0', 0],
  ])('reads %s', (text, ms) => {
    expect(parseDurationMs(text)).toBe(ms);
  });

  it.each(['', 'soon', '-1s', '1w', '1e3', 's'])('refuses %j', (text) => {
    expect(parseDurationMs(text)).toBeUndefined();
  });
});

describe('parseBytes', () => {
  it.each([
    ['1048576', 1_048_576],
    ['512KiB', 524_288],
    ['1.5 GiB', 1_610_612_736],
    ['8B', 8],
  ])('reads %s', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(['', '1MB', '-1', '0.3B', '9007199254740993'])('refuses %j', (text) => {
    expect(parseBytes(text)).toBeUndefined();
  });
});
