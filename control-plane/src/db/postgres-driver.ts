import { registerHooks } from 'node:module';

// postgres.js 3.4.9 does not bear a connection that breaks under a query: the process ends with an exception that nobody can
// catch, a statement of the broken transaction runs in another one, a statement is never answered, or the connection never
// comes back; with several servers none of which takes it, it dials them without end or pause. What follows is corrected in
// its source when it is loaded, in part as in the changes that wait there:
// https://github.com/porsager/postgres/pull/1209 and https://github.com/porsager/postgres/pull/1215

/** By file: texts that occur there once, and what stands there instead. */
const CORRECTIONS: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  '/postgres/src/connection.js': [
    // Nothing that was meant for the broken connection goes over the next one, and nobody waits for its answer.
    [
      `    clearImmediate(nextWriteTimer)
    socket.removeListener('data', data)
    socket.removeListener('connect', connected)
    idleTimer.cancel()`,
      `    clearImmediate(nextWriteTimer)
    chunk = nextWriteTimer = null
    socket.removeListener('data', data)
    socket.removeListener('connect', connected)
    idleTimer.cancel()`,
    ],
    [
      `    if (initial)
      return reconnect()

    !hadError && (query || sent.length) && error(`,
      `    const waiting = query || sent.length
    if (initial && options.host[retries + 1]) {
      retries++
      query = results = errorResponse = null
      result = new Result()
      return reconnect()
    }
    if (initial)
      hadError = true

    ;(initial || waiting) && error(`,
    ],
    [
      `    closedTime = performance.now()
    hadError`,
      `    retries = 0
    query = results = errorResponse = null
    result = new Result()
    closedTime = performance.now()
    hadError`,
    ],
    // With several servers only what waits for a connection goes to the next one, until each was asked once.
    [
      'if (connection.queue === queues.connecting && options.host[retries + 1])',
      'if (initial && connection.queue === queues.connecting && options.host[retries + 1])',
    ],
    [`errored(Errors.connection('CONNECT_TIMEOUT'`, `error(Errors.connection('CONNECT_TIMEOUT'`],
    [
      `    query.execute()
`,
      `    query.execute()
    query.catch(() => {})
`,
    ],
    // Whoever waits for the connection is told why it failed; nobody awaits this.
    ['return fetchArrayTypes()', 'return fetchArrayTypes().catch(() => {})'],
    // A statement that comes after the end is refused.
    [
      `  function nextWrite(fn) {
`,
      `  function nextWrite(fn) {
    if (socket === null) {
      chunk = nextWriteTimer = null
      query && queryError(query, Errors.connection('CONNECTION_CLOSED', options, socket))
      query = null
      while (sent.length)
        queryError(sent.shift(), Errors.connection('CONNECTION_CLOSED', options, socket))
      return false
    }
`,
    ],
  ],
  '/postgres/src/index.js': [
    // A transaction ends with its connection.
    [
      `      , prepare = null

    try {`,
      `      , prepare = null
      , broken = null

    try {`,
    ],
    [
      'new Promise((_, reject) => connection.onclose = reject)',
      `new Promise((_, reject) => connection.onclose = e => {
          broken = e
          while (queries.length)
            queries.shift().reject(e)
          reject(e)
        })`,
    ],
    [
      `        q.catch(e => uncaughtError || (uncaughtError = e))
`,
      `        q.catch(e => uncaughtError || (uncaughtError = e))
        if (broken)
          return q.reject(broken)
`,
    ],
  ],
};

const hooks = registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const file = Object.keys(CORRECTIONS).find((end) => url.endsWith(end));
    if (file === undefined || loaded.source == null) return loaded;
    const bytes =
      typeof loaded.source === 'string' ? loaded.source : Buffer.from(loaded.source as Uint8Array).toString();
    return { ...loaded, source: corrected(file, bytes) };
  },
});
const { default: postgres } = await import('postgres');
hooks.deregister();

export { postgres };

function corrected(file: string, source: string): string {
  return (CORRECTIONS[file] ?? []).reduce((text, [before, after]) => {
    const [head, tail, ...more] = text.split(before);
    if (head === undefined || tail === undefined || more.length > 0) {
      throw new Error(`${file} is not that of postgres.js 3.4.9: look whether it still needs the corrections`);
    }
    return head + after + tail;
  }, source);
}
