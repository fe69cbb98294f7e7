import { type Logger, pino } from 'pino';

export type { Logger };

export interface LoggerOptions {
  /** Name of the process: `control-plane`, `agent`. */
  name: string;
  /** pino level: `trace` to `fatal`, or `silent`. */
  level: string;
  /** Default: standard error, so that standard output stays free for what a command answers. */
  to?: 'stdout' | 'stderr';
  /** Gets each line too. Must not throw, and must not log from within `write`. */
  also?: { write(line: string): void };
}

/** JSON lines on a standard stream. */
export function createLogger({ name, level, to = 'stderr', also }: LoggerOptions): Logger {
  const standard = pino.destination({ dest: to === 'stdout' ? 1 : 2, sync: false });
  return pino(
    {
      name,
      level,
      timestamp: pino.stdTimeFunctions.isoTime,
      base: { pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: ['authorization', '*.authorization', 'token', '*.token', 'joinToken', '*.joinToken'] },
    },
    also === undefined
      ? standard
      : {
          write: (line: string) => {
            standard.write(line);
            also.write(line);
          },
        },
  );
}
