import { collectedCounter, collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';

export interface LinkSources {
  linked: () => boolean;
  /** Counted since the start of the agent. */
  counts: () => {
    dials: number;
    opened: number;
    framesReceived: number;
    framesSent: number;
    bytesReceived: number;
    bytesSent: number;
  };
  /** How long the agent may still believe that it owns its attempts, in milliseconds; undefined: there is no lease. */
  leaseLeftMs: () => number | undefined;
}

/** The link to the control plane. */
export function addLinkMetrics(register: MetricsRegistry, { linked, counts, leaseLeftMs }: LinkSources): void {
  collectedGauge(register, {
    name: 'harrier_agent_link_connected',
    help: 'Whether the link to the control plane is up.',
    read: () => Number(linked()),
  });
  collectedGauge(register, {
    name: 'harrier_agent_lease_remaining_seconds',
    help: 'Time for which the agent still owns its attempts without a word of the control plane; none without a lease.',
    read: () => {
      const leftMs = leaseLeftMs();
      return leftMs === undefined ? undefined : Math.max(0, leftMs) / 1000;
    },
  });
  const counter = (name: string, help: string, read: () => number) => collectedCounter(register, { name, help, read });
  counter('harrier_agent_link_dials_total', 'Tries to link to a control plane.', () => counts().dials);
  counter('harrier_agent_links_opened_total', 'Links that a control plane has admitted.', () => counts().opened);
  for (const [name, help, received, sent] of [
    ['frames', 'Frames on the link.', 'framesReceived', 'framesSent'],
    ['bytes', 'Bytes of the frames on the link.', 'bytesReceived', 'bytesSent'],
  ] as const) {
    collectedCounter(register, {
      name: `harrier_agent_link_${name}_total`,
      help,
      labelNames: ['direction'],
      read: () => [
        { labels: { direction: 'received' }, value: counts()[received] },
        { labels: { direction: 'sent' }, value: counts()[sent] },
      ],
    });
  }
}
