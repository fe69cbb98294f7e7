import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';

// Answers every message with itself, with the settings of the agent link.

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
server.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
server.on('listening', () => process.stdout.write(`ws://127.0.0.1:${(server.address() as AddressInfo).port}\n`));
