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
  /** Of a warm interpreter, as the launcher knows it. */
  key: 'harrier.key',
} as const;

/** Containers, also ended ones, that have all of these labels. */
export async function listContainers(
  engine: DockerEngine,
  labels: Readonly<Record<string, string>>,
): Promise<{ name: string; labels: Readonly<Record<string, string>> }[]> {
  const label = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  // The client's types know this request in too many forms.
  const answer: Promise<{ Names: string[]; Labels: Record<string, string> }[]> = engine.docker.listContainers({
    all: true,
    filters: { label },
  });
  return (await answer).map(({ Names, Labels }) => ({ name: (Names[0] ?? '').replace(/^\//, ''), labels: Labels }));
}
