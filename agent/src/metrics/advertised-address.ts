import { formatHostPort, type HostPort } from '@harrier/shared';

/** What a listener may be bound to that nobody can dial. */
const EVERYWHERE = new Set(['0.0.0.0', '::']);
const LOOPBACK = /^(127\.|::1$|localhost$)/;

/**
 * Where Prometheus finds the metrics from outside this host, as it is told to the control plane; empty: nowhere.
 * @param advertise what the operator says; undefined: nothing
 */
export function advertisedAddress(listen: HostPort, advertise: HostPort | undefined, hostname: string): string {
  if (advertise !== undefined) return formatHostPort({ ...advertise, port: advertise.port || listen.port });
  if (LOOPBACK.test(listen.host)) return '';
  return formatHostPort({ host: EVERYWHERE.has(listen.host) ? hostname : listen.host, port: listen.port });
}
