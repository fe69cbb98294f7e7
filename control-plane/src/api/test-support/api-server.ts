import { HarrierError } from '@harrier/shared';
import { Access_Role } from '@harrier/shared/gen/options';
import { pino } from 'pino';
import { type ApiHandlerOptions, createApiHandler } from '../api-handler.ts';
import type { Authenticate } from '../interceptors/principal.ts';
import { createListener, type ListenerOptions } from '../listener/listener.ts';
import { createSampleServices } from './sample-services.ts';

const ROLES: Record<string, Access_Role> = {
  viewer: Access_Role.VIEWER,
  developer: Access_Role.DEVELOPER,
  operator: Access_Role.OPERATOR,
};

/** The token is the name of its role. */
export const authenticateByRole: Authenticate = async (header) => {
  const role = ROLES[header?.replace(/^Bearer /, '') ?? ''];
  if (role === undefined) throw new HarrierError('unauthenticated', 'no valid credential was given');
  return { tenantId: 'tenant-1', role, keyId: `key-of-${header}` };
};

export interface ObservedCall {
  method: string;
  code: string;
}

export interface ApiServer {
  /** `http://127.0.0.1:port`. */
  url: string;
  port: number;
  calls: ObservedCall[];
  /** What was logged, one object a line. */
  logs: Record<string, unknown>[];
  close(graceMs?: number): Promise<void>;
}

/** A real listener with the sample services on a free port of the loopback interface. */
export async function startApiServer(
  options: Partial<ApiHandlerOptions> = {},
  listenerOptions: Partial<ListenerOptions> = {},
): Promise<ApiServer> {
  const calls: ObservedCall[] = [];
  const logs: Record<string, unknown>[] = [];
  const logger = pino({ level: 'trace' }, { write: (line: string) => void logs.push(JSON.parse(line)) });
  const handler = createApiHandler({
    services: createSampleServices(),
    authenticate: authenticateByRole,
    observe: (method, code) => void calls.push({ method, code }),
    ready: async () => true,
    logger,
    ...options,
  });
  const listener = createListener({ host: '127.0.0.1', port: 0, handler, logger, ...listenerOptions });
  const { port } = await listener.listen();
  const scheme = listenerOptions.tls === undefined ? 'http' : 'https';
  return {
    url: `${scheme}://127.0.0.1:${port}`,
    port,
    calls,
    logs,
    close: (graceMs = 1_000) => listener.close(graceMs),
  };
}
