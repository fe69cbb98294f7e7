import { createLogger, type Logger } from '@harrier/shared';
import { LogFile, type LogFileSettings } from './log-file.ts';

export type { LogFileSettings };

export interface AgentLogger {
  logger: Logger;
  /** What was logged is in the file. */
  close(): Promise<void>;
}

/** The agent's log: JSON lines on standard output, and in a file of its own where the operator wants one. */
export function createAgentLogger(level: string, settings: LogFileSettings | undefined): AgentLogger {
  const options = { name: 'agent', level, to: 'stdout' } as const;
  if (settings === undefined) return { logger: createLogger(options), close: async () => {} };
  const file = new LogFile(settings, (reason) => {
    logger.warn(
      { file: settings.path, reason },
      'the log file cannot be written; trying again, lines are missing in it',
    );
  });
  const logger = createLogger({ ...options, also: file });
  return { logger, close: () => file.close() };
}
