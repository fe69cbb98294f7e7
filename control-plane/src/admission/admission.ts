import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import { readTenantAdmission } from '../db/queries/tenant-admission.ts';
import type { Sql } from '../db/sql.ts';
import { TokenBucket } from './token-bucket.ts';

/** How old what is known of a tenant may be when it is used; it is read anew behind the call that finds it older. */
const FRESH_MS = 1_000;
/** A queue moves, but nobody knows how fast. */
const QUEUE_RETRY_MS = 2_000;
const STORE_RETRY_MS = 1_000;
const MIN_WEIGHT = 0.001;

export interface AdmissionSettings {
  /** Executions of one tenant that may wait for an agent; 0: any number. */
  maxQueued: number;
  /** Executions that one tenant may start in a second at each replica, on average; 0: any number. */
  maxPerSecond: number;
  /** Executions that may wait to be written to the database at once, over all tenants. */
  maxUnstored: number;
  /** Executions of one tenant that may be under way at once; 0: any number. */
  maxActive: number;
}

export interface AdmissionOptions {
  sql: Sql;
  settings: AdmissionSettings;
  /** Executions that wait to be written now. */
  unstored: () => number;
  /** Told of each refusal. */
  onRefused: (reason: RefusalReason) => void;
  logger: Logger;
  nowMs?: () => number;
}

export type RefusalReason = 'queue' | 'rate' | 'store';

interface Tenant {
  /** Undefined: not known yet. */
  maxActive: number | undefined;
  weight: number;
  maxQueued: number;
  /** Of its queue, as the database has said last, and what has gone into it from here since. */
  queued: number;
  /** Of these, those since the database was asked the last time: it may not have seen them. */
  added: number;
  readAtMs: number;
  reading: boolean;
  bucket: TokenBucket | undefined;
}

/**
 * Refuses new executions before they cost anything, when taking them would only make everybody wait longer: those that were
 * taken are not slowed by those that come. Each refusal tells when to come again.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #nowMs: () => number;
  readonly #tenants = new Map<string, Tenant>();

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /** Before anything else is done for a new execution. @throws HarrierError resource_exhausted */
  admit(tenantId: string): void {
    const { settings, unstored } = this.#options;
    const waiting = unstored();
    if (waiting >= settings.maxUnstored) {
      const message = `${waiting} executions wait for the database already; try again later`;
      throw this.#refusal('store', message, STORE_RETRY_MS);
    }
    const { bucket } = this.#tenant(tenantId);
    const waitMs = bucket?.take(this.#nowMs()) ?? 0;
    if (bucket !== undefined && waitMs > 0) {
      const message = `more than ${bucket.perSecond} executions a second; try again later`;
      throw this.#refusal('rate', message, waitMs);
    }
  }

  /** Before an execution is put into the queue, because no agent has room for it. @throws HarrierError resource_exhausted */
  admitToQueue(tenantId: string): void {
    const tenant = this.#tenant(tenantId);
    if (tenant.maxQueued > 0 && tenant.queued >= tenant.maxQueued) {
      const message = `${tenant.maxQueued} executions wait for an agent already; try again later`;
      throw this.#refusal('queue', message, QUEUE_RETRY_MS);
    }
    tenant.queued++;
    tenant.added++;
  }

  /** How many executions of a tenant may be under way, as the database has said last. */
  quotaOf(tenantId: string): number | 'none' | 'unknown' {
    const { maxActive } = this.#tenant(tenantId);
    if (maxActive === undefined) return 'unknown';
    return maxActive === 0 ? 'none' : maxActive;
  }

  /** Reads what is not known yet of a tenant; not knowing it costs its first calls a little time. */
  async prepare(tenantId: string): Promise<void> {
    const tenant = this.#tenant(tenantId);
    if (tenant.maxActive === undefined) await this.#read(tenantId, tenant);
  }

  /** Its share beside other tenants. */
  weightOf(tenantId: string): number {
    return this.#tenant(tenantId).weight;
  }

  #refusal(reason: RefusalReason, message: string, retryAfterMs: number): HarrierError {
    this.#options.onRefused(reason);
    return new HarrierError('resource_exhausted', message, { retryAfterMs });
  }

  #tenant(id: string): Tenant {
    const nowMs = this.#nowMs();
    let tenant = this.#tenants.get(id);
    if (tenant === undefined) {
      const { maxQueued, maxPerSecond } = this.#options.settings;
      const bucket = bucketOf(maxPerSecond, undefined, nowMs);
      const readAtMs = Number.NEGATIVE_INFINITY;
      tenant = { maxActive: undefined, weight: 1, maxQueued, queued: 0, added: 0, readAtMs, reading: false, bucket };
      this.#tenants.set(id, tenant);
    }
    if (!tenant.reading && nowMs - tenant.readAtMs > FRESH_MS) void this.#read(id, tenant);
    return tenant;
  }

  /** Without the database what was known stands; the call that asked for it is told by its own statement. */
  async #read(id: string, tenant: Tenant): Promise<void> {
    const { sql, settings, logger } = this.#options;
    tenant.reading = true;
    tenant.added = 0;
    try {
      const row = await readTenantAdmission(sql, id, settings.maxQueued);
      if (row === undefined) return;
      tenant.maxActive = row.max_active ?? settings.maxActive;
      // A weight of 0 would never have a turn, and there would be no end to its wait.
      tenant.weight = Math.max(row.weight, MIN_WEIGHT);
      tenant.maxQueued = row.max_queued ?? settings.maxQueued;
      tenant.queued = row.queued + tenant.added;
      const perSecond = row.max_per_second ?? settings.maxPerSecond;
      tenant.bucket = bucketOf(perSecond, tenant.bucket, this.#nowMs());
    } catch (error) {
      logger.debug({ reason: messageOf(error) }, 'the queue of a tenant could not be counted');
    } finally {
      tenant.readAtMs = this.#nowMs();
      tenant.reading = false;
    }
  }
}

function bucketOf(perSecond: number, before: TokenBucket | undefined, nowMs: number): TokenBucket | undefined {
  if (perSecond <= 0) return undefined;
  return before?.perSecond === perSecond ? before : new TokenBucket(perSecond, nowMs);
}
