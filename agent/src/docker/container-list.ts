import type { DockerEngine } from './engine.ts';

/** Labels by which containers are found again. */
export const LABEL = {
  /** Data directory of the agent that the container belongs to. */
  agent: 'harrier.agent',
  /** `run`: one call. `pool`: a warm interpreter. */
  role: 'harrier.role',
  execution: 'harrier.execution',
  attempt: 'harrier.attempt',
  tenant: 'harrier.tenant',
} as const;

/** Containers, also ended ones, that have all of these labels. */
export async function listContainers(
  engine: DockerEngine,
  labels: Readonly<Record<string, string>>,
): Promise<{ id: string; name: string }[]> {
  const label = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  // The client's types know this request in too many forms.
  const answer: Promise<{ Id: string; Names: string[] }[]> = engine.docker.listContainers({
    all: true,
    filters: { label },
  });
  return (await answer).map(({ Id, Names }) => ({ id: Id, name: (Names[0] ?? '').replace(/^\//, '') }));
}
