import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A TCP connection for what no HTTP client would send. */
export async function openRaw(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  await once(socket, 'connect');
  return socket;
}

/** Everything that the server sends until it closes the connection. */
export async function readUntilClosed(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  // A reset after the answer is as good an end as any.
  socket.on('error', () => {});
  await once(socket, 'close');
  return Buffer.concat(chunks).toString('latin1');
}

/** Sends bytes on a connection of their own and reads until it closes. */
export async function exchange(port: number, bytes: string): Promise<string> {
  const socket = await openRaw(port);
  const answer = readUntilClosed(socket);
  socket.write(bytes, 'latin1');
  return answer;
}
