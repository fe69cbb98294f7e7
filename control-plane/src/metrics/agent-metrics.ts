import { Agent_State as AgentState } from '@harrier/shared/gen/agent';
import { collectedCounter, collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { enumName } from './enum-name.ts';

/** What goes over the links of this replica, counted since its start. */
export interface LinkCounts {
  framesReceived: number;
  framesSent: number;
  bytesReceived: number;
  bytesSent: number;
  opened: number;
  /** By what ended the link: the code of the goodbye, or `lost`. */
  closed: ReadonlyMap<string, number>;
}

/** An agent that is linked to this replica. */
export interface LinkedFacts {
  draining: boolean;
  slots: number;
  active: number;
  /** Milliseconds since 1970. */
  lastSeenMs: number;
}

export interface AgentSources {
  linked: () => Iterable<LinkedFacts>;
  /** Linked to no replica. */
  offline: () => Promise<number>;
  /** Agents whose work is kept for them because most have gone at once. */
  held: () => number;
  link: LinkCounts;
}

/** Agents and their links. */
export function addAgentMetrics(register: MetricsRegistry, { linked, offline, held, link }: AgentSources): void {
  collectedGauge(register, {
    name: 'harrier_agents',
    help: 'Agents by state: online and draining are those linked to this replica; offline ones are linked to none, and every replica tells all of them.',
    labelNames: ['state'],
    read: async () => {
      const states = new Map<AgentState, number>([
        [AgentState.ONLINE, 0],
        [AgentState.DRAINING, 0],
      ]);
      for (const { draining } of linked()) {
        const state = draining ? AgentState.DRAINING : AgentState.ONLINE;
        states.set(state, (states.get(state) ?? 0) + 1);
      }
      // What is in memory is told without the database too.
      const away = await offline().catch(() => undefined);
      if (away !== undefined) states.set(AgentState.OFFLINE, away);
      return [...states].map(([state, value]) => ({ labels: { state: enumName(AgentState, state) }, value }));
    },
  });
  collectedGauge(register, {
    name: 'harrier_held_agents',
    help: 'Agents whose work is kept for them, because most agents have gone at once; on the replica that looks after leases.',
    read: held,
  });
  collectedGauge(register, {
    name: 'harrier_slots',
    help: 'Executions that the agents linked to this replica run at once, at most, by use: free or active.',
    labelNames: ['use'],
    read: () => {
      let slots = 0;
      let active = 0;
      for (const agent of linked()) {
        slots += agent.slots;
        active += agent.active;
      }
      return [
        { labels: { use: 'free' }, value: Math.max(0, slots - active) },
        { labels: { use: 'active' }, value: active },
      ];
    },
  });
  collectedGauge(register, {
    name: 'harrier_link_silence_seconds',
    help: 'Time since the agent that was silent for longest was heard, of those linked to this replica; none without agents.',
    read: () => {
      const seen = [...linked()].map(({ lastSeenMs }) => lastSeenMs);
      return seen.length === 0 ? undefined : Math.max(0, Date.now() - seen.reduce((a, b) => Math.min(a, b))) / 1000;
    },
  });
  collectedCounter(register, {
    name: 'harrier_links_opened_total',
    help: 'Links of agents that this replica has admitted, first ones and reconnects.',
    read: () => link.opened,
  });
  collectedCounter(register, {
    name: 'harrier_links_closed_total',
    help: 'Links of admitted agents that ended, by reason: the code of the goodbye, or lost.',
    labelNames: ['reason'],
    read: () => [...link.closed].map(([reason, value]) => ({ labels: { reason }, value })),
  });
  collectedCounter(register, {
    name: 'harrier_link_frames_total',
    help: 'Frames on the links of this replica.',
    labelNames: ['direction'],
    read: () => byDirection(link.framesReceived, link.framesSent),
  });
  collectedCounter(register, {
    name: 'harrier_link_bytes_total',
    help: 'Bytes of the frames on the links of this replica.',
    labelNames: ['direction'],
    read: () => byDirection(link.bytesReceived, link.bytesSent),
  });
}

function byDirection(received: number, sent: number) {
  return [
    { labels: { direction: 'received' }, value: received },
    { labels: { direction: 'sent' }, value: sent },
  ];
}
