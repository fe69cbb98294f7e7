import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ensureTenant } from '../db/queries/api-keys.ts';
import { uuidv7 } from '../db/uuid.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { EventFile } from './event-file.ts';

// Here, not in a hook: it is closed after the file.
const { cold: sql } = await startDatabase();
let tenantId: string;
let count = 0;
const folder = mkdtempSync(join(tmpdir(), 'harrier-events-'));

beforeAll(async () => {
  tenantId = await ensureTenant(sql, uuidv7(), 'default');
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('the file of events', () => {
  test('has every event once and in order, over restarts, torn lines and rotation', async () => {
    const path = join(folder, 'whole.jsonl');
    await tell(3);
    let file = await openFile(path);
    await vi.waitFor(() => expect(numbers(path)).toEqual([1, 2, 3]));
    await file.stop();

    await tell(2);
    writeFileSync(path, `${readFileSync(path, 'utf8')}{"position":"99`);
    file = await openFile(path);
    await vi.waitFor(() => expect(numbers(path)).toEqual([1, 2, 3, 4, 5]));

    renameSync(path, `${path}.1`);
    await tell(2);
    await vi.waitFor(() => expect(numbers(path)).toEqual([6, 7]));
    await file.stop();
    expect(numbers(`${path}.1`)).toEqual([1, 2, 3, 4, 5]);

    renameSync(path, `${path}.2`);
    await tell(1);
    file = await openFile(path);
    await vi.waitFor(() => expect(numbers(path)).toEqual([8]));
    await file.stop();
  });

  test('goes on where the database says when its last line is of another cluster', async () => {
    const path = join(folder, 'restored.jsonl');
    await tell(1);
    let file = await openFile(path);
    await vi.waitFor(() => expect(numbers(path).at(-1)).toBe(count));
    await file.stop();
    const foreign = `{"position":"9000000000-1"}\n`;
    const before = readFileSync(path, 'utf8') + foreign;
    writeFileSync(path, before);
    await tell(2);
    file = await openFile(path);
    await vi.waitFor(() =>
      expect(lines(path).slice(-2)).toMatchObject([{ data: { number: count - 1 } }, { data: { number: count } }]),
    );
    await file.stop();
    const text = readFileSync(path, 'utf8');
    expect(text.startsWith(before)).toBe(true);
    expect(text.slice(before.length).trim().split('\n')).toHaveLength(2);
  });

  test('does not write into a file of something else', async () => {
    const path = join(folder, 'other.txt');
    writeFileSync(path, 'a letter\n');
    await expect(openFile(path)).rejects.toThrow(/other\.txt cannot be continued: its last line is no event/);
    expect(readFileSync(path, 'utf8')).toBe('a letter\n');
  });

  test('says of each event what it has', async () => {
    const path = join(folder, 'lines.jsonl');
    const id = uuidv7();
    await sql`INSERT INTO events (tenant_id, type, execution_id, attempt, state, error_code)
      VALUES (${tenantId}, 'execution.finished', ${id}, 2, 7, 7)`;
    const file = await openFile(path);
    await vi.waitFor(() => expect(lines(path).at(-1)).toMatchObject({ execution: id }));
    await file.stop();
    expect(lines(path).at(-1)).toEqual({
      position: expect.stringMatching(/^\d+-\d+$/),
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      type: 'execution.finished',
      tenant: tenantId,
      execution: id,
      attempt: 2,
      state: 'TIMED_OUT',
      error: 'TIMEOUT',
    });
  });
});

function openFile(path: string): Promise<EventFile> {
  return EventFile.open({ sql, path, reader: `file:test:${path}`, logger: silent });
}

async function tell(events: number): Promise<void> {
  for (let i = 0; i < events; i++) {
    await sql`INSERT INTO events (tenant_id, type, data) VALUES (${tenantId}, 'agent.linked', ${sql.json({ number: ++count })})`;
  }
}

function lines(path: string): Record<string, unknown>[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

function numbers(path: string): unknown[] {
  return lines(path).map(({ data }) => (data as { number: number } | undefined)?.number);
}
