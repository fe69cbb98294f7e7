import { type Logger, messageOf } from '@harrier/shared';
import { type LogFacts, logFacts } from './log-facts.ts';

/** Writes down what is true of an attempt already. What a full disk does not take stays true, but a later agent will not know it. */
export function keepFact(facts: LogFacts, logger: Logger, write: () => void): void {
  try {
    write();
  } catch (error) {
    logger.error({ ...logFacts(facts), reason: messageOf(error) }, 'a fact is only in memory');
  }
}
