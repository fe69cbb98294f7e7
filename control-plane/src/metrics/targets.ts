/** An agent whose metrics can be had from outside its host. */
export interface Target {
  id: string;
  name: string;
  version: string;
  labels: Readonly<Record<string, string>>;
  metrics_address: string;
  linked: boolean;
  draining: boolean;
}

/** What is not of a label's name in Prometheus. */
const NO_NAME = /[^a-zA-Z0-9_]/g;

/**
 * Targets as Prometheus discovers them: https://prometheus.io/docs/prometheus/latest/http_sd/. `agent` becomes a label of every
 * series; what begins with `__meta_` is for rules of relabelling. Agents that are not linked stay: that a target does not
 * answer is for Prometheus to notice.
 */
export function discoveryOf(targets: readonly Target[]): string {
  const groups = targets.map(({ id, name, version, labels, metrics_address: address, linked, draining }) => ({
    targets: [address],
    labels: {
      agent: name,
      __meta_harrier_agent_id: id,
      __meta_harrier_agent_version: version,
      __meta_harrier_agent_state: linked ? (draining ? 'draining' : 'online') : 'offline',
      ...Object.fromEntries(
        Object.entries(labels).map(([key, value]) => [
          `__meta_harrier_agent_label_${key.replaceAll(NO_NAME, '_')}`,
          value,
        ]),
      ),
    },
  }));
  return `${JSON.stringify(groups)}\n`;
}
