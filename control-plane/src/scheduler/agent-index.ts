import type { Candidate } from '../agent-link/candidate.ts';
import { SLURM, selects } from './constraint.ts';
import { availableGpus, isSuitable } from './gpu-choice.ts';
import { type HeapEntry, isLessLoaded, type LoadEntry, LoadHeap } from './load-heap.ts';
import type { Demand, Requirement } from './requirement.ts';
import { capacityIn, hasRoom, leftOf, loadOf } from './room.ts';
import { WarmAgents } from './warm-agents.ts';

/** Requirements of one tenant for which it is known which agents can meet them. */
const MAX_KNOWN_REQUIREMENTS = 256;
/** An agent that holds the environment is taken unless another one is less loaded by more than this share of its slots. */
const WARM_LEAD = 0.5;

/** Agents between which only the load makes a difference, and how many of their cards are free. */
interface Group {
  key: string;
  /** Any of them: what they have in common is read from it. */
  like: Candidate;
  entries: Set<Entry>;
  /** Those that have a slot. */
  withRoom: LoadHeap<Entry>;
  /** Of them, those with free cards, by how many there are. */
  withGpus: Map<number, LoadHeap<GpuEntry>>;
  /** Of the least loaded one, at hand: there may be as many groups as agents. Infinite when none has room. */
  load: number;
  sequence: number;
}

interface Tenant {
  groups: Map<string, Group>;
  /** Groups that meet a requirement, by its text; forgotten when groups come and go. */
  fitting: Map<string, Group[]>;
  /** Agents that are kept for an execution. */
  kept: Set<Entry>;
}

interface Entry extends LoadEntry {
  tenant: Tenant;
  group: Group;
  /** As they were when its group was chosen. */
  environments: ReadonlySet<string>;
  gpuKey: string | undefined;
  isolation: number | undefined;
  /** Its place among those with free cards; undefined: it has none. */
  gpus: GpuEntry | undefined;
  keeping: Keeping | undefined;
}

interface GpuEntry extends LoadEntry {
  free: number;
}

/** What is free on an agent, or becomes so, is for one execution that waits for much. */
export interface Keeping {
  executionId: string;
  /** Whether another execution is in nobody's way there. */
  allows: (requirement: Requirement) => boolean;
}

/**
 * The linked agents, ordered so that the choice of one does not look at all of them: agents of one tenant with the same labels,
 * environments, kinds of cards and isolation are a group, and each group knows its least loaded agent.
 */
export class AgentIndex {
  readonly #tenants = new Map<string, Tenant>();
  readonly #entries = new Map<string, Entry>();
  readonly #warm = new WarmAgents();
  #sequence = 0;
  #withRoom = 0;
  #withSlurm = 0;
  /** Agents that are kept for an execution: they have room for it, if for nobody else. */
  #kept = 0;

  /** Whether any agent may have room for anything. */
  get hasRoom(): boolean {
    return this.#withRoom > 0 || this.#withSlurm > 0 || this.#kept > 0;
  }

  /** An agent came, or what counts of it has changed. */
  set(agent: Candidate): void {
    let entry = this.#entries.get(agent.id);
    if (entry?.agent !== agent || isOtherGroup(entry)) {
      const sequence = entry?.agent === agent ? entry.sequence : this.#sequence++;
      const keeping = entry?.keeping;
      this.delete(agent.id);
      entry = this.#enter(agent, sequence);
      entry.keeping = keeping;
      if (keeping !== undefined) this.#setKept(entry, true);
    }
    this.#arrange(entry);
  }

  /** Safe to call for an agent that is not there. */
  delete(agentId: string): void {
    const entry = this.#entries.get(agentId);
    if (entry === undefined) return;
    this.#entries.delete(agentId);
    const { tenant, group } = entry;
    if (entry.position >= 0) this.#withRoom--;
    if (entry.environments.has(SLURM)) this.#withSlurm--;
    group.withRoom.remove(entry);
    removeGpus(entry);
    noteFirst(group);
    this.#setKept(entry, false);
    group.entries.delete(entry);
    for (const other of group.entries) {
      group.like = other.agent;
      return;
    }
    tenant.groups.delete(group.key);
    tenant.fitting.clear();
    if (tenant.groups.size === 0) this.#tenants.delete(entry.agent.tenantId);
  }

  /**
   * The agent that is to take an execution now; undefined when there is none. Of those that can it is the least loaded one, but
   * for GPUs the one that has fewest left; ties go to the first.
   * @param executionId absent: it is none for which an agent is kept
   */
  place(requirement: Requirement, executionId?: string): Candidate | undefined {
    const tenant = this.#tenants.get(requirement.tenantId);
    if (tenant === undefined) return undefined;
    const { demand, refusals, warmKey } = requirement;
    const groups = fittingGroups(tenant, requirement);
    if (tenant.kept.size > 0) {
      const kept = placeKept(tenant.kept, groups, requirement, executionId);
      if (kept !== undefined) return kept;
    }
    if (demand !== undefined || (refusals !== undefined && refusals.size > 0)) {
      return this.#placeChoosy(groups, requirement);
    }
    let best: Group | undefined;
    for (const group of groups) if (best === undefined || isLessLoaded(group, best)) best = group;
    const first = best?.withRoom.first();
    if (warmKey === undefined || first === undefined) return first?.agent;
    return this.#warmer(warmKey, groups, first, (agent) => hasRoom(agent, undefined)).agent;
  }

  /** An execution goes to an agent, which has what it needs from then on. */
  placed(requirement: Requirement, agentId: string): void {
    const { warmKey } = requirement;
    if (warmKey !== undefined) this.#warm.add(warmKey, agentId);
  }

  /** Keeps an agent for an execution; undefined: for nobody any more. */
  keep(agentId: string, keeping: Keeping | undefined): void {
    const entry = this.#entries.get(agentId);
    if (entry === undefined) return;
    entry.keeping = keeping;
    this.#setKept(entry, keeping !== undefined);
    this.#arrange(entry);
  }

  /** Whether an agent is kept for an execution still: one that is linked anew is not. */
  keeps(agentId: string, executionId: string): boolean {
    return this.#entries.get(agentId)?.keeping?.executionId === executionId;
  }

  #setKept(entry: Entry, isKept: boolean): void {
    const { kept } = entry.tenant;
    this.#kept -= kept.size;
    if (isKept) kept.add(entry);
    else kept.delete(entry);
    this.#kept += kept.size;
  }

  /** Puts an agent where its load belongs. */
  #arrange(entry: Entry): void {
    const { agent, group, keeping } = entry;
    const { withRoom } = group;
    this.#withRoom -= withRoom.size;
    entry.load = loadOf(agent);
    const takes = !agent.draining && keeping === undefined && agent.active < agent.slots;
    if (takes) withRoom.put(entry);
    else withRoom.remove(entry);
    this.#withRoom += withRoom.size;
    noteFirst(group);
    if (agent.gpus === undefined && entry.gpus === undefined) return;
    const free = takes ? availableGpus(agent) : 0;
    if (entry.gpus?.free !== free) removeGpus(entry);
    if (free === 0) return;
    entry.gpus ??= { agent, load: 0, sequence: entry.sequence, position: -1, free };
    entry.gpus.load = entry.load;
    let heap = group.withGpus.get(free);
    if (heap === undefined) {
      heap = new LoadHeap();
      group.withGpus.set(free, heap);
    }
    heap.put(entry.gpus);
  }

  #placeChoosy(groups: readonly Group[], { demand, refusals, warmKey }: Requirement): Candidate | undefined {
    const fits = (agent: Candidate) => refusals?.has(agent.id) !== true && hasRoom(agent, demand);
    if (demand !== undefined && demand.slots === 0) return leastSlurm(groups, fits);
    if (demand !== undefined && demand.gpus > 0) return fewestGpus(groups, demand, fits);
    const best = leastLoaded(groups, fits);
    if (best === undefined || warmKey === undefined) return best?.agent;
    return this.#warmer(warmKey, groups, best, fits).agent;
  }

  /** One that holds what is needed already, if it has room and is not much more loaded. */
  #warmer(key: string, groups: readonly Group[], best: LoadEntry, fits: (agent: Candidate) => boolean): LoadEntry {
    let chosen: LoadEntry | undefined;
    for (const agentId of this.#warm.of(key)) {
      const entry = this.#entries.get(agentId);
      if (entry === undefined || entry.position < 0 || entry.load > best.load + WARM_LEAD) continue;
      if (!groups.includes(entry.group) || !fits(entry.agent)) continue;
      if (chosen === undefined || isLessLoaded(entry, chosen)) chosen = entry;
    }
    return chosen ?? best;
  }

  #enter(agent: Candidate, sequence: number): Entry {
    const { tenantId, environments, labels, gpus, isolation } = agent;
    let tenant = this.#tenants.get(tenantId);
    if (tenant === undefined) {
      tenant = { groups: new Map(), fitting: new Map(), kept: new Set() };
      this.#tenants.set(tenantId, tenant);
    }
    const facts = [[...environments].toSorted(), Object.entries(labels).toSorted(), gpus?.key ?? '', isolation ?? -1];
    const key = JSON.stringify(facts);
    let group = tenant.groups.get(key);
    if (group === undefined) {
      group = {
        key,
        like: agent,
        entries: new Set(),
        withRoom: new LoadHeap(),
        withGpus: new Map(),
        load: Number.POSITIVE_INFINITY,
        sequence: 0,
      };
      tenant.groups.set(key, group);
      tenant.fitting.clear();
    }
    const entry: Entry = {
      agent,
      load: 0,
      sequence,
      position: -1,
      tenant,
      group,
      environments,
      gpuKey: gpus?.key,
      isolation,
      gpus: undefined,
      keeping: undefined,
    };
    group.entries.add(entry);
    this.#entries.set(agent.id, entry);
    if (hasSlurm(agent)) this.#withSlurm++;
    return entry;
  }
}

/** What is compared of its group has changed since it was chosen. */
function isOtherGroup({ agent, environments, gpuKey, isolation }: Entry): boolean {
  return environments !== agent.environments || gpuKey !== agent.gpus?.key || isolation !== agent.isolation;
}

function hasSlurm({ environments }: Candidate): boolean {
  return environments.has(SLURM);
}

function removeGpus(entry: Entry): void {
  const { gpus, group } = entry;
  if (gpus === undefined) return;
  const heap = group.withGpus.get(gpus.free);
  heap?.remove(gpus);
  if (heap?.size === 0) group.withGpus.delete(gpus.free);
  entry.gpus = undefined;
}

function noteFirst(group: Group): void {
  const first = group.withRoom.first();
  group.load = first?.load ?? Number.POSITIVE_INFINITY;
  group.sequence = first?.sequence ?? 0;
}

function leastLoaded(groups: readonly Group[], fits: (agent: Candidate) => boolean): Entry | undefined {
  let best: Entry | undefined;
  for (const group of groups) {
    // None of a group is less loaded than its first.
    if (best !== undefined && !isLessLoaded(group, best)) continue;
    best = lesser(best, firstThat(group.withRoom, fits));
  }
  return best;
}

function fewestGpus(
  groups: readonly Group[],
  { gpus }: Demand,
  fits: (agent: Candidate) => boolean,
): Candidate | undefined {
  let best: GpuEntry | undefined;
  for (const { withGpus } of groups) {
    for (const [free, heap] of withGpus) {
      if (free < gpus || free > (best?.free ?? free)) continue;
      const found = firstThat(heap, fits);
      best = best !== undefined && found !== undefined && found.free < best.free ? found : lesser(best, found);
    }
  }
  return best?.agent;
}

/** Jobs of Slurm go where there are fewest. Looks at every agent: few have Slurm. */
function leastSlurm(groups: readonly Group[], fits: (agent: Candidate) => boolean): Candidate | undefined {
  let best: { agent: Candidate; load: number; sequence: number } | undefined;
  for (const { entries } of groups) {
    for (const { agent, sequence } of entries) {
      if (agent.draining || !fits(agent)) continue;
      const load = 1 - leftOf(agent, 'slurmJobs') / capacityIn(agent.capacity, 'slurmJobs');
      if (best === undefined || isLessLoaded({ load, sequence }, best)) best = { agent, load, sequence };
    }
  }
  return best?.agent;
}

function firstThat<E extends HeapEntry & { agent: Candidate }>(
  heap: LoadHeap<E>,
  fits: (agent: Candidate) => boolean,
): E | undefined {
  return heap.first(({ agent }) => !fits(agent));
}

function lesser<E extends LoadEntry>(a: E | undefined, b: E | undefined): E | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return isLessLoaded(b, a) ? b : a;
}

/** An agent that is kept for this execution, or that others may use besides. */
function placeKept(
  kept: ReadonlySet<Entry>,
  groups: readonly Group[],
  requirement: Requirement,
  executionId: string | undefined,
): Candidate | undefined {
  let best: Entry | undefined;
  for (const entry of kept) {
    const { agent, group, keeping } = entry;
    if (agent.draining || !groups.includes(group) || requirement.refusals?.has(agent.id) === true) continue;
    if (!hasRoom(agent, requirement.demand)) continue;
    if (keeping?.executionId === executionId) return agent;
    if (keeping?.allows(requirement) === true) best = lesser(best, entry);
  }
  return best?.agent;
}

/** Groups whose agents can take it when they have room. */
function fittingGroups(tenant: Tenant, { environment, selectors, demand, isolation }: Requirement): Group[] {
  const asked = demand === undefined || demand.gpus === 0 ? undefined : { gpus: demand.gpus, gpu: demand.gpu };
  const isSlurm = demand !== undefined && demand.slurmJobs > 0;
  const isPlain = demand === undefined && selectors.length === 0 && isolation === undefined;
  const key = isPlain ? environment : JSON.stringify([environment, selectors, isolation, asked, isSlurm]);
  let groups = tenant.fitting.get(key);
  if (groups === undefined) {
    groups = [...tenant.groups.values()].filter(({ like }) => {
      if (!like.environments.has(environment) || !selects(selectors, like)) return false;
      if (isSlurm && !hasSlurm(like)) return false;
      if ((like.isolation ?? Number.POSITIVE_INFINITY) < (isolation ?? 0)) return false;
      if (asked === undefined) return true;
      const suitable = (like.gpus?.devices ?? []).filter((device) => isSuitable(device, asked));
      return suitable.length >= asked.gpus;
    });
    if (tenant.fitting.size >= MAX_KNOWN_REQUIREMENTS) tenant.fitting.clear();
    tenant.fitting.set(key, groups);
  }
  return groups;
}
