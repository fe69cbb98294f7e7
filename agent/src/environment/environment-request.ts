import { create } from '@bufbuild/protobuf';
import type { Assignment, Resolve } from '@harrier/shared/gen/link';
import { type Environment, EnvironmentSchema } from '@harrier/shared/gen/module';
import type { EnvironmentRequest } from './environment.ts';
import { providerKind } from './environment-registry.ts';

/** What an assignment asks of a provider. */
export function requestOfAssignment(assignment: Assignment): EnvironmentRequest {
  const { tenant, environment, program, limits, decidedLocks, gpuUuids } = assignment;
  const preload = program.case === 'python' ? program.value.preload : [];
  const asked = { tenant, environment: orInline(environment), language: languageOf(program), preload };
  return { ...asked, decidedLocks, cpu: limits?.cpu ?? 0, gpuUuids };
}

/** The kind of environment that an assignment runs in. */
export function environmentKind(assignment: Assignment): string {
  return providerKind(requestOfAssignment(assignment));
}

/** What is to be resolved. */
export function requestOfResolve({ tenant, environment, language, decidedLocks }: Resolve): EnvironmentRequest {
  return { tenant, environment: orInline(environment), language, decidedLocks, preload: [] };
}

function orInline(environment: Environment | undefined): Environment {
  if (environment?.kind.case !== undefined) return environment;
  return create(EnvironmentSchema, { kind: { case: 'inline', value: {} } });
}

function languageOf(program: Assignment['program']): string {
  if (program.case === 'script') return program.value.language;
  return program.case === 'python' ? 'python' : '';
}
