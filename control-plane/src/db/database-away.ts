/** Of the driver and of the network: no answer came. */
const NO_ANSWER =
  /^(CONNECTION_(CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|ECONNREFUSED|ECONNRESET|EPIPE|ENOENT|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN)$/;
/**
 * Of the server: connection exceptions, too many connections, it stops or is not ready yet, and it takes no writes, being a
 * standby or having become one. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const NOT_NOW = /^(08\w{3}|53300|57P0[123]|25006)$/;

/** Whether a statement failed because the database cannot be reached, or not now: it may have been carried out all the same. */
export function isDatabaseAway(error: unknown): boolean {
  const code = databaseErrorCode(error);
  return NO_ANSWER.test(code) || NOT_NOW.test(code);
}

/** Of the server: its disk or its memory is full. */
const NO_ROOM = /^53[12]00$/;

/** Whether the server refused a statement for want of room: it takes it when it has some. */
export function isDatabaseFull(error: unknown): boolean {
  return NO_ROOM.test(databaseErrorCode(error));
}

/** The SQLSTATE of the server, or the code of the driver or the network; empty when the error has none. */
export function databaseErrorCode(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? code : '';
}
