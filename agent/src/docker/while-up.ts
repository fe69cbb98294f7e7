import type { DockerEngine } from './engine.ts';

/**
 * The answer of the engine, or of what it asks for us. Requests of an engine that hangs never end by themselves.
 * @throws EngineUnavailableError when the engine is or gets lost; the signal's reason when aborted; what the answer throws
 */
export async function whileUp<T>(
  engine: Pick<DockerEngine, 'lost'>,
  answer: Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  answer.catch(() => {});
  const { lost } = engine;
  const over = Promise.withResolvers<never>();
  over.promise.catch(() => {});
  const signals = signal === undefined ? [lost] : [lost, signal];
  const listeners = signals.map((each) => {
    const onAbort = (): void => over.reject(each.reason);
    if (each.aborted) onAbort();
    each.addEventListener('abort', onAbort, { once: true });
    return () => each.removeEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([over.promise, answer]);
  } finally {
    for (const remove of listeners) remove();
  }
}
