import type postgres from 'postgres';

/** A pool of connections; numbers up to 2^53 are all that we store in bigint columns. */
export type Sql = postgres.Sql<{ bigint: number }>;

/** A pool, or one transaction of it. */
export type AnySql = postgres.ISql<{ bigint: number }>;
