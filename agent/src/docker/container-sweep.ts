import type { Logger } from '@harrier/shared';
import { listContainers } from './container-list.ts';
import { ContainerRun } from './container-run.ts';
import { type DockerEngine, engineMessage } from './engine.ts';

/**
 * Removes the containers with these labels that are not wanted. What fails is tried when it is called again.
 * @param isWanted by name; asked when the container is there already
 */
export async function removeOtherContainers(
  engine: DockerEngine,
  labels: Readonly<Record<string, string>>,
  isWanted: (name: string) => boolean,
  logger: Logger,
): Promise<void> {
  try {
    for (const { name } of await listContainers(engine, labels)) {
      if (!isWanted(name)) await new ContainerRun(engine, name).remove();
    }
  } catch (error) {
    logger.warn({ reason: engineMessage(error) }, 'containers not looked through');
  }
}
