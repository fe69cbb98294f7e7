import type { Candidate } from '../agent-link/candidate.ts';
import { isLessLoaded, type LoadEntry, LoadHeap } from './load-heap.ts';
import { type Requirement, selects } from './place.ts';

/** Requirements of one tenant for which it is known which agents can meet them. */
const MAX_KNOWN_REQUIREMENTS = 256;

/** Agents between which only the load makes a difference. */
interface Group {
  key: string;
  environments: ReadonlySet<string>;
  labels: Readonly<Record<string, string>>;
  agents: number;
  /** Those that have room. */
  withRoom: LoadHeap;
  /** Of the least loaded one, at hand: there may be as many groups as agents. Infinite when none has room. */
  load: number;
  sequence: number;
}

interface Tenant {
  groups: Map<string, Group>;
  /** Groups that meet a requirement, by its text; forgotten when groups come and go. */
  fitting: Map<string, Group[]>;
}

interface Entry extends LoadEntry {
  tenant: Tenant;
  group: Group;
  /** As they were when its group was chosen. */
  environments: ReadonlySet<string>;
}

/**
 * The linked agents, ordered so that the choice of one does not look at all of them: agents of one tenant with the same labels and
 * environments are a group, and each group knows its least loaded agent.
 */
export class AgentIndex {
  readonly #tenants = new Map<string, Tenant>();
  readonly #entries = new Map<string, Entry>();
  #sequence = 0;
  #withRoom = 0;

  /** Whether any agent has room for anything. */
  get hasRoom(): boolean {
    return this.#withRoom > 0;
  }

  /** An agent came, or what counts of it has changed. */
  set(agent: Candidate): void {
    let entry = this.#entries.get(agent.id);
    if (entry?.agent !== agent || entry.environments !== agent.environments) {
      const sequence = entry?.agent === agent ? entry.sequence : this.#sequence++;
      this.delete(agent.id);
      entry = this.#enter(agent, sequence);
    }
    const { withRoom } = entry.group;
    this.#withRoom -= withRoom.size;
    entry.load = agent.active / agent.slots;
    if (agent.draining || agent.active >= agent.slots) withRoom.remove(entry);
    else withRoom.put(entry);
    this.#withRoom += withRoom.size;
    noteFirst(entry.group);
  }

  /** Safe to call for an agent that is not there. */
  delete(agentId: string): void {
    const entry = this.#entries.get(agentId);
    if (entry === undefined) return;
    this.#entries.delete(agentId);
    const { tenant, group } = entry;
    if (entry.position >= 0) this.#withRoom--;
    group.withRoom.remove(entry);
    noteFirst(group);
    group.agents--;
    if (group.agents > 0) return;
    tenant.groups.delete(group.key);
    tenant.fitting.clear();
    if (tenant.groups.size === 0) this.#tenants.delete(entry.agent.tenantId);
  }

  /** The least loaded agent that can take an execution now; undefined when there is none. Ties go to the first. */
  place(requirement: Requirement): Candidate | undefined {
    const tenant = this.#tenants.get(requirement.tenantId);
    if (tenant === undefined || this.#withRoom === 0) return undefined;
    const groups = fittingGroups(tenant, requirement);
    const { refusals } = requirement;
    if (refusals !== undefined && refusals.size > 0) return placeBeside(refusals, groups);
    let best: Group | undefined;
    for (const group of groups) if (best === undefined || isLessLoaded(group, best)) best = group;
    return best?.withRoom.first()?.agent;
  }

  #enter(agent: Candidate, sequence: number): Entry {
    const { tenantId, environments, labels } = agent;
    let tenant = this.#tenants.get(tenantId);
    if (tenant === undefined) {
      tenant = { groups: new Map(), fitting: new Map() };
      this.#tenants.set(tenantId, tenant);
    }
    const key = JSON.stringify([[...environments].toSorted(), Object.entries(labels).toSorted()]);
    let group = tenant.groups.get(key);
    if (group === undefined) {
      group = {
        key,
        environments,
        labels,
        agents: 0,
        withRoom: new LoadHeap(),
        load: Number.POSITIVE_INFINITY,
        sequence: 0,
      };
      tenant.groups.set(key, group);
      tenant.fitting.clear();
    }
    group.agents++;
    const entry = { agent, load: 0, sequence, position: -1, tenant, group, environments };
    this.#entries.set(agent.id, entry);
    return entry;
  }
}

function noteFirst(group: Group): void {
  const first = group.withRoom.first();
  group.load = first?.load ?? Number.POSITIVE_INFINITY;
  group.sequence = first?.sequence ?? 0;
}

/** Looks at every agent: few executions are refused. */
function placeBeside(refusals: ReadonlyMap<string, string>, groups: readonly Group[]): Candidate | undefined {
  let best: LoadEntry | undefined;
  for (const { withRoom } of groups) {
    const first = withRoom.first(({ agent }) => refusals.has(agent.id));
    if (first !== undefined && (best === undefined || isLessLoaded(first, best))) best = first;
  }
  return best?.agent;
}

function fittingGroups(tenant: Tenant, { environment, selectors }: Requirement): Group[] {
  const key = JSON.stringify([environment, selectors]);
  let groups = tenant.fitting.get(key);
  if (groups === undefined) {
    groups = [...tenant.groups.values()].filter(
      (group) => group.environments.has(environment) && selects(selectors, group),
    );
    if (tenant.fitting.size >= MAX_KNOWN_REQUIREMENTS) tenant.fitting.clear();
    tenant.fitting.set(key, groups);
  }
  return groups;
}
