import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { formatLogLine } from './log-line.ts';

const format = (line: string): string => stripVTControlCharacters(formatLogLine('agent', line));

describe('formatLogLine', () => {
  it('shortens a line of a log', () => {
    const line =
      '{"level":"warn","time":"2026-01-02T03:04:05.678Z","pid":1,"name":"a","agentId":"x","err":{"message":"lost"},"msg":"link down"}';
    expect(format(line)).toBe('03:04:05 agent warn link down agentId=x err=lost');
  });

  it.each(['harrier agent: HARRIER_SERVER_URL is missing', '{"not":"a log line"}', '{broken'])('leaves %s', (line) => {
    expect(format(line)).toBe(line);
  });
});
