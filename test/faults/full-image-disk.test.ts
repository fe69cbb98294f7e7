import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { buildImage, DOCKER_SOCKET, docker, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';

const MIB = 1024 * 1024;
/** Of the disk that the agent takes for the engine's, and what stays free on it. */
const DISK_MIB = 96;
const FREE_MIB = 64;

await startDockerEngine();
const engineDir = docker('info', '--format', '{{.DockerRootDir}}');
const hub = await DockerRegistry.start();
const stack = await startStack({
  agents: [
    {
      name: 'small',
      // The agent sees a disk of its own where the engine keeps images; the engine's is as it was.
      wrapper: [
        ...['unshare', '-m', 'sh', '-c'],
        `mount -t tmpfs -o size=${DISK_MIB}m,mode=711 none "$0" && exec "$@"`,
        engineDir,
      ],
      env: {
        HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
        HARRIER_AGENT_ALLOWED_IMAGES: '*',
        HARRIER_AGENT_MIN_FREE_BYTES: String(FREE_MIB * MIB),
      },
    },
  ],
});
const { executions } = stack;

/** The file that fills the disk, as the agent has it. */
function filler(): string {
  return join(`/proc/${stack.agents[0]?.program.pid}/root`, engineDir, 'filler');
}

const inImage = (image: string) => ({
  target: {
    case: 'code' as const,
    value: {
      source: 'def handler(input):\n    return {}\n',
      environment: { kind: { case: 'docker' as const, value: { image } } },
    },
  },
});

test('without room images that are there are used, and others are not fetched until there is room again', async () => {
  const image = `${hub.address}/roomy:1`;
  const own = 'harrier-test/own:roomy';
  buildImage(own, `FROM ${PYTHON_IMAGE}\nRUN echo roomy > /text\n`);
  hub.push(own, 'roomy:1');
  docker('image', 'rm', '--force', own);
  try {
    writeFileSync(filler(), Buffer.alloc((DISK_MIB - FREE_MIB + 1) * MIB));
    // Neither a container is warm, nor has the agent asked for the image before.
    expect(await execute(executions, inImage(PYTHON_IMAGE))).toMatchObject({ state: State.SUCCEEDED });
    const refused = await execute(executions, inImage(image));
    expect(refused).toMatchObject({ state: State.FAILED, error: { code: Code.ENVIRONMENT_FAILED } });
    const why = new RegExp(`^small: no room for the image ${image}: \\d+ MiB free of 64 MiB needed on the disk of `);
    expect(refused.error?.message).toMatch(why);
    // It was never accepted.
    expect(refused.phases?.prepareMs ?? 0).toBe(0);
    expect(docker('image', 'ls', '--quiet', image)).toBe('');
    rmSync(filler());
    expect(await execute(executions, inImage(image))).toMatchObject({ state: State.SUCCEEDED });
  } finally {
    docker('image', 'rm', '--force', image);
    await hub.stop();
  }
});
