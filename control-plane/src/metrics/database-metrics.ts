import { collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Histogram } from 'prom-client';

const STATEMENT_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60];
const ITEM_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200];

export interface DatabaseSources {
  /** Told of each statement from now on; a transaction counts as one. */
  observe: (onEnd: (pool: string, seconds: number, failed: boolean) => void) => void;
  /** Connections that each pool opens at most, and statements that it has not answered yet. */
  pools: () => { pool: string; connections: number; active: number }[];
  /** Told of each batch of a group commit that was written from now on. */
  observeBatches: (onWritten: (batch: string, items: number, seconds: number) => void) => void;
  /** Items that wait for their batch. */
  waiting: () => { batch: string; items: number }[];
}

/** Statements and group commits. */
export function addDatabaseMetrics(register: MetricsRegistry, sources: DatabaseSources): void {
  const registers = [register];
  const statements = new Histogram({
    name: 'harrier_database_statement_duration_seconds',
    help: 'Duration of statements, with the wait for a connection, by pool of connections; a transaction counts as one.',
    labelNames: ['pool'],
    buckets: STATEMENT_BUCKETS,
    registers,
  });
  const failures = new Counter({
    name: 'harrier_database_statement_failures_total',
    help: 'Statements that failed, by pool of connections.',
    labelNames: ['pool'],
    registers,
  });
  sources.observe((pool, seconds, failed) => {
    statements.observe({ pool }, seconds);
    if (failed) failures.inc({ pool });
  });
  collectedGauge(register, {
    name: 'harrier_database_statements_active',
    help: 'Statements without an answer yet, by pool of connections; more than its connections means that some wait for one.',
    labelNames: ['pool'],
    read: () => sources.pools().map(({ pool, active }) => ({ labels: { pool }, value: active })),
  });
  collectedGauge(register, {
    name: 'harrier_database_connections_max',
    help: 'Connections that a pool opens at most.',
    labelNames: ['pool'],
    read: () => sources.pools().map(({ pool, connections }) => ({ labels: { pool }, value: connections })),
  });
  const items = new Histogram({
    name: 'harrier_database_batch_items',
    help: 'Items that shared one statement and one commit, by what they are: new executions, results, pieces of logs.',
    labelNames: ['batch'],
    buckets: ITEM_BUCKETS,
    registers,
  });
  const durations = new Histogram({
    name: 'harrier_database_batch_duration_seconds',
    help: 'Duration of the statement that a batch of items shared.',
    labelNames: ['batch'],
    buckets: STATEMENT_BUCKETS,
    registers,
  });
  sources.observeBatches((batch, count, seconds) => {
    items.observe({ batch }, count);
    durations.observe({ batch }, seconds);
  });
  collectedGauge(register, {
    name: 'harrier_database_batch_waiting',
    help: 'Items that wait for their batch to be written.',
    labelNames: ['batch'],
    read: () => sources.waiting().map(({ batch, items: value }) => ({ labels: { batch }, value })),
  });
}
