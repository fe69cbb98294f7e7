import { type Logger, pino } from 'pino';

export type { Logger };

export interface LoggerOptions {
  /** Name of the process: `control-plane`, `agent`. */
  name: string;
  /** pino level: `trace` to `fatal`, or `silent`. */
  level: string;
}

/** JSON lines on standard error, so that standard output stays free for what a command answers. */
export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      name: options.name,
      level: options.level,
      timestamp: pino.stdTimeFunctions.isoTime,
      base: { pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: ['authorization', '*.authorization', 'token', '*.token', 'joinToken', '*.joinToken'] },
    },
    pino.destination({ dest: 2, sync: false }),
  );
}
