import { isIP } from 'node:net';
import type { ServicePort } from './service-definition.ts';

const PORT =
  /^(?:(?<ip>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?<host>\d{1,5}):(?<container>\d{1,5})(?:\/(?<protocol>tcp|udp))?$/;
/** As for the control plane: what is to be reached from elsewhere says so. */
const DEFAULT_IP = '127.0.0.1';

/**
 * Reads `[ADDRESS:]HOST_PORT:CONTAINER_PORT[/tcp|/udp]`.
 * @throws Error that says what is wrong with it
 */
export function parsePort(text: string): ServicePort {
  const groups = PORT.exec(text)?.groups;
  const hostIp = (groups?.ip ?? DEFAULT_IP).replace(/^\[|\]$/g, '');
  const hostPort = Number(groups?.host);
  const containerPort = Number(groups?.container);
  const isPort = (port: number): boolean => port >= 1 && port <= 65_535;
  if (groups === undefined || isIP(hostIp) === 0 || !isPort(hostPort) || !isPort(containerPort)) {
    throw new Error(`must be HOST_PORT:CONTAINER_PORT or ADDRESS:HOST_PORT:CONTAINER_PORT, not "${text}"`);
  }
  return { hostIp, hostPort, containerPort, protocol: groups.protocol === 'udp' ? 'udp' : 'tcp' };
}

/** For people, and to tell whether two services want the same: `127.0.0.1:8080/tcp`. */
export function hostSide({ hostIp, hostPort, protocol }: ServicePort): string {
  return `${hostIp.includes(':') ? `[${hostIp}]` : hostIp}:${hostPort}/${protocol}`;
}
