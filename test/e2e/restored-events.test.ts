import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { runProgram } from '../support/program.ts';
import { code } from '../support/requests.ts';
import { until } from '../support/wait.ts';
import { directory, environment } from '../support/workspace.ts';

const [before, after] = [await ExternalPostgres.start(), await ExternalPostgres.start()];
afterAll(async () => {
  await before.stop();
  await after.stop();
});
const folder = directory('events');
const path = join(folder, 'events.jsonl');
const env = { HARRIER_EVENTS_FILE: path };

async function run(program: string, ...options: string[]): Promise<void> {
  const { code: exit, stderr } = await runProgram({ argv: [program, ...options], env: environment({}), cwd: folder });
  if (exit !== 0) throw new Error(`${program} failed:\n${stderr}`);
}

/** Of which executions the file tells that they were created, in order. */
function told(): string[] {
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '');
  const events = lines.map((line) => JSON.parse(line) as { type: string; execution: string });
  return events.filter(({ type }) => type === 'execution.created').map(({ execution }) => execution);
}

test('a dump that is restored into another cluster: the file goes on with what was not written yet, and with all that comes', async () => {
  const waiting = { ...code('x'), agentSelector: 'none=here' };
  const first = await ControlPlane.start({ databaseUrl: before.url, env });
  // The other cluster is young.
  const sql = connect({ url: before.url }, 1);
  await sql.unsafe('DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
  const ids = [await create(first.clients.executions, waiting), await create(first.clients.executions, waiting)];
  await until('the first events to be written', () => told().length === 2);
  await first.stop();

  const [event] = await sql<{ execution_id: string }[]>`
    INSERT INTO events (tenant_id, type, execution_id)
    SELECT tenant_id, type, gen_random_uuid() FROM events WHERE type = 'execution.created' LIMIT 1 RETURNING execution_id`;
  ids.push(event?.execution_id ?? '');
  await sql.end();
  const dump = join(folder, 'harrier.dump');
  const at = (url: string) => ['--no-owner', '--no-privileges', `--dbname=${url}`];
  await run('pg_dump', ...at(before.url), '--format=custom', `--file=${dump}`);
  await run('pg_restore', ...at(after.url), '--exit-on-error', '--single-transaction', dump);

  const second = await ControlPlane.start({ databaseUrl: after.url, env });
  try {
    ids.push(await create(second.clients.executions, waiting));
    await until('all events to be written', () => told().length >= 4);
    const third = await ControlPlane.start({ databaseUrl: after.url });
    await third.stop();
    ids.push(await create(second.clients.executions, waiting));
    await until('the last event to be written', () => told().at(-1) === ids.at(-1));
    expect(told()).toEqual(ids);
  } finally {
    await second.stop();
  }
});
