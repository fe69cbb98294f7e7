import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type ManagedService, ManagedServiceSchema, ManagedService_State as State } from '@harrier/shared/gen/agent';
import { type Health, isToBeStartedAgain } from './decide.ts';
import { definitionHash, type ServiceDefinition } from './service-definition.ts';
import type { ServiceContainer } from './service-engine.ts';

/** What a service's state is made of. */
export interface ServiceFacts {
  definition: ServiceDefinition;
  environment: string;
  /** Why the engine cannot be asked. */
  engineProblem: string | undefined;
  /** What is being done now, for people; only what comes before the container runs. */
  doing: string | undefined;
  /** Why the last step failed; undefined when it succeeded. */
  problem: string | undefined;
  /** Why it is not to be started with the GPUs that it wants. */
  gpuProblem: string | undefined;
  container: ServiceContainer | undefined;
  health: Health;
  healthMessage: string;
  restarts: number;
}

/** A service as it is told to the control plane. */
export function reportOf(facts: ServiceFacts): ManagedService {
  const { definition, environment, container, restarts } = facts;
  const hasRun = container !== undefined && container.startedAtMs > 0;
  return create(ManagedServiceSchema, {
    name: definition.name,
    environment,
    image: definition.image,
    ...stateOf(facts),
    restarts,
    containerId: container?.id ?? '',
    ...(hasRun ? { startTime: timestampFromMs(container.startedAtMs) } : {}),
  });
}

function stateOf(facts: ServiceFacts): { state: State; message: string } {
  const { engineProblem, doing, problem, gpuProblem, container } = facts;
  if (engineProblem !== undefined) return { state: State.FAILED, message: engineProblem };
  if (container?.status === 'running') return runningState(facts);
  if (gpuProblem !== undefined && !hasEndedForGood(facts)) return { state: State.FAILED, message: gpuProblem };
  if (doing !== undefined) return { state: State.STARTING, message: doing };
  if (problem !== undefined) return { state: State.FAILED, message: problem };
  switch (container?.status) {
    case 'ended': {
      const message = `it ended with exit code ${container.exitCode}`;
      if (!hasEndedForGood(facts)) return { state: State.BACKING_OFF, message };
      return { state: State.STOPPED, message: `${message}, and restart is ${facts.definition.restart}` };
    }
    case 'busy':
      return { state: State.STOPPED, message: 'its container is paused, or being removed, by somebody else' };
    default:
      return { state: State.STARTING, message: '' };
  }
}

function hasEndedForGood({ definition, container }: ServiceFacts): boolean {
  if (container?.status !== 'ended' || container.hash !== definitionHash(definition)) return false;
  return !isToBeStartedAgain(definition, container);
}

function runningState({ health, healthMessage, problem, gpuProblem }: ServiceFacts): { state: State; message: string } {
  // It goes on as it was made while what the file says now cannot be had.
  const kept = gpuProblem === undefined ? '' : `it goes on as it is: ${gpuProblem}`;
  const former = kept || (problem === undefined ? '' : `the former definition goes on: ${problem}`);
  switch (health) {
    case 'healthy':
      return { state: State.HEALTHY, message: former };
    case 'unhealthy':
      return { state: State.UNHEALTHY, message: former || healthMessage || 'its health check fails' };
    case 'starting':
      return { state: State.RUNNING, message: former || healthMessage || 'its health check has not succeeded yet' };
    case 'none':
      return { state: State.RUNNING, message: former };
  }
}
