/** Entries of the queue that ask the same of agents, in their order. */
export interface Lane {
  tenantId: string;
  taskClass: string;
  /** Of its first entry. */
  priority: number;
  /** Of its first entry: ids grow with time. */
  id: string;
}

export interface FairTurnsOptions {
  /** Executions of a task class of a tenant that are under way. */
  underWay: (tenantId: string, taskClass: string) => number;
  /** Greater than 0. */
  tenantWeight: (tenantId: string) => number;
  /** Greater than 0. */
  classWeight: (taskClass: string) => number;
}

/** One turn in so many goes to the class that had none for longest, whatever it has under way. */
const OLDEST_EVERY = 8;
/** Tenants of which it is remembered how much they had. */
const MAX_TENANTS = 10_000;

/**
 * Whose turn it is. Tenants get as many turns as each other, by their weights, however many wait: virtual time as in "Start-time
 * Fair Queuing" (Goyal, Vin, Cheng; 1996). Within a tenant the highest priority is first; of the same priority the class that has
 * least under way for its weight, so that long runs do not take everything from short ones; within a class who came first.
 */
export class FairTurns {
  readonly #options: FairTurnsOptions;
  /** Turns of each tenant by its weight. */
  readonly #times = new Map<string, number>();
  /** The time of the tenant that had the last turn: whoever comes begins there, and gets nothing for having been away. */
  #now = 0;
  readonly #servedAt = new Map<string, number>();
  #turn = 0;

  constructor(options: FairTurnsOptions) {
    this.#options = options;
  }

  /** The lane whose first entry is next; undefined when there is no lane. */
  next<L extends Lane>(lanes: Iterable<L>): L | undefined {
    let best: L | undefined;
    for (const lane of lanes) if (best === undefined || this.#isBefore(lane, best)) best = lane;
    return best;
  }

  /** An entry of the lane was placed. */
  served({ tenantId, taskClass }: Lane): void {
    const time = this.#timeOf(tenantId);
    this.#now = time;
    this.#times.delete(tenantId);
    this.#times.set(tenantId, time + 1 / this.#options.tenantWeight(tenantId));
    if (this.#times.size > MAX_TENANTS) this.#forgetOldest();
    if (this.#servedAt.size > MAX_TENANTS) this.#servedAt.clear();
    this.#servedAt.set(`${tenantId} ${taskClass}`, ++this.#turn);
  }

  #isBefore(a: Lane, b: Lane): boolean {
    if (a.tenantId !== b.tenantId) {
      const [first, second] = [this.#timeOf(a.tenantId), this.#timeOf(b.tenantId)];
      return first === second ? a.tenantId < b.tenantId : first < second;
    }
    if (a.priority !== b.priority) return a.priority > b.priority;
    if (a.taskClass === b.taskClass) return a.id < b.id;
    const [first, second] = [this.#rankOf(a), this.#rankOf(b)];
    if (first !== second) return first < second;
    const [one, other] = [this.#servedAtOf(a), this.#servedAtOf(b)];
    return one === other ? a.id < b.id : one < other;
  }

  #rankOf(lane: Lane): number {
    if (this.#turn % OLDEST_EVERY === OLDEST_EVERY - 1) return this.#servedAtOf(lane);
    const { underWay, classWeight } = this.#options;
    return underWay(lane.tenantId, lane.taskClass) / classWeight(lane.taskClass);
  }

  #servedAtOf({ tenantId, taskClass }: Lane): number {
    return this.#servedAt.get(`${tenantId} ${taskClass}`) ?? 0;
  }

  #timeOf(tenantId: string): number {
    return Math.max(this.#times.get(tenantId) ?? 0, this.#now);
  }

  #forgetOldest(): void {
    for (const tenantId of this.#times.keys()) {
      this.#times.delete(tenantId);
      return;
    }
  }
}
