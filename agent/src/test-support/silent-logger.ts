import { createLogger, type Logger } from '@harrier/shared';

export function silentLogger(): Logger {
  return createLogger({ name: 'test', level: 'silent' });
}
