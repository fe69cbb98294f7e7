import { setTimeout as delay } from 'node:timers/promises';
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import {
  type Health,
  type HealthCheckRequest,
  HealthCheckResponse_ServingStatus as Status,
} from '@harrier/shared/gen/grpc/health/v1/health';
import type { Ready } from '../probes/probes.ts';

/** Between two checks of a watched server. */
const DEFAULT_POLL_MS = 5_000;

export interface HealthOptions {
  ready: Ready;
  /** Full names of the services that clients may ask about; they are healthy when the server is. */
  serviceNames: readonly string[];
  pollMs?: number;
}

/**
 * gRPC health checking (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). It answers without a
 * credential, as load balancers and orchestrators have none, and tells nothing but whether the server serves.
 */
export function createHealth(options: HealthOptions): ServiceImpl<typeof Health> {
  const { pollMs = DEFAULT_POLL_MS } = options;
  const known = new Set(['', ...options.serviceNames]);
  const status = async () => ((await options.ready()) ? Status.SERVING : Status.NOT_SERVING);

  return {
    async check(request: HealthCheckRequest) {
      if (!known.has(request.service)) {
        throw new ConnectError(`service: no service has the name ${JSON.stringify(request.service)}`, Code.NotFound);
      }
      return { status: await status() };
    },

    async *watch(request: HealthCheckRequest, context: HandlerContext) {
      let last: Status | undefined;
      while (!context.signal.aborted) {
        const current: Status = known.has(request.service) ? await status() : Status.SERVICE_UNKNOWN;
        if (current !== last) yield { status: current };
        last = current;
        // Aborted: the caller went away, its deadline passed, or the server stops.
        await delay(pollMs, undefined, { signal: context.signal });
      }
    },

    async list() {
      const current = await status();
      return { statuses: Object.fromEntries([...known].map((name) => [name, { status: current }])) };
    },
  };
}
