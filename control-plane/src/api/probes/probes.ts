import type { Logger } from '@harrier/shared';
import type { HttpHandler, HttpResponse } from '../http-types.ts';
import { sendText } from '../response-writer.ts';

/** Can calls be served now: is the database there, are migrations done. Rejecting counts as no. */
export type Ready = () => Promise<boolean>;

/** `ready` that never rejects: a failure is logged and is a no. */
export function createReadiness(ready: Ready, logger: Logger, shutdownSignal?: AbortSignal): Ready {
  return async () => {
    if (shutdownSignal?.aborted) return false;
    try {
      return await ready();
    } catch (error) {
      logger.warn({ err: error }, 'readiness check failed');
      return false;
    }
  };
}

/** The process lives and its event loop turns. */
export const healthz: HttpHandler = (_request, response) => answer(response, true);

/** 200 or 503: whether a load balancer should send calls here. */
export function createReadyz(ready: Ready): HttpHandler {
  return (_request, response) => {
    void ready().then((isReady) => answer(response, isReady));
  };
}

function answer(response: HttpResponse, good: boolean): void {
  sendText(
    response,
    good ? 200 : 503,
    'application/json',
    { 'cache-control': 'no-store' },
    good ? SERVING : NOT_SERVING,
  );
}

const SERVING = JSON.stringify({ status: 'SERVING' });
const NOT_SERVING = JSON.stringify({ status: 'NOT_SERVING' });
