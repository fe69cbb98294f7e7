import { collectedCounter, collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';

export interface EventSources {
  /** The file of events; undefined: this replica writes none. */
  file: () => { written: number; failing: boolean } | undefined;
  /** Messages between replicas, counted since the start. */
  bus: () => { received: number; sent: number; gaps: number };
  /** Control planes that share the database, this one included, as of its last beat. */
  replicas: () => number;
}

/** Events, and what replicas tell each other. */
export function addEventMetrics(register: MetricsRegistry, { file, bus, replicas }: EventSources): void {
  collectedCounter(register, {
    name: 'harrier_event_file_events_total',
    help: 'Events that were written to the file of events; 0 without such a file.',
    read: () => file()?.written ?? 0,
  });
  collectedGauge(register, {
    name: 'harrier_event_file_failing',
    help: 'Whether events wait because the file of events, or the database, cannot be reached; none without such a file.',
    read: () => {
      const failing = file()?.failing;
      return failing === undefined ? undefined : Number(failing);
    },
  });
  collectedGauge(register, {
    name: 'harrier_replicas',
    help: 'Control planes that share the database, this one included.',
    read: replicas,
  });
  collectedCounter(register, {
    name: 'harrier_replica_messages_total',
    help: 'Messages between the replicas, as this one sees them.',
    labelNames: ['direction'],
    read: () => {
      const { received, sent } = bus();
      return [
        { labels: { direction: 'received' }, value: received },
        { labels: { direction: 'sent' }, value: sent },
      ];
    },
  });
  collectedCounter(register, {
    name: 'harrier_replica_gaps_total',
    help: 'Times that messages of other replicas may have been missed.',
    read: () => bus().gaps,
  });
}
