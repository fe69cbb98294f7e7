import { once } from 'node:events';
import { type AddressInfo, createServer, connect as dial, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import type { Sql } from '../db/sql.ts';

/** A TCP address of the database that a pool is of: its links can be cut, and it can take links that come to nothing. */
export async function startAddress(pool: Sql) {
  const socketPath = String(pool.options.path);
  const links = new Set<Socket>();
  const state = { refuses: false, dials: 0 };
  const server = createServer((link) => {
    state.dials++;
    const behind = dial(socketPath);
    for (const socket of [link, behind]) {
      links.add(socket);
      socket.on('error', () => undefined).on('close', () => links.delete(socket));
    }
    link.on('close', () => behind.destroy());
    behind.on('close', () => link.destroy());
    if (state.refuses) link.destroy();
    else link.pipe(behind).pipe(link);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const cut = () => {
    for (const link of links) link.destroy();
  };
  onTestFinished(() => {
    server.close();
    cut();
  });
  return { place: `127.0.0.1:${(server.address() as AddressInfo).port}`, state, cut };
}
