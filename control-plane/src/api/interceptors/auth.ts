import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { Code, ConnectError, type HandlerContext } from '@connectrpc/connect';
import { codeToString } from '@connectrpc/connect/protocol-connect';
import type { Logger } from '@harrier/shared';
import { Access_Role, Access_RoleSchema, required_role } from '@harrier/shared/gen/options';
import { toConnectError } from './errors.ts';
import { methodNameOf } from './method-name.ts';
import { type Authenticate, type Principal, principalKey } from './principal.ts';
import type { Observe } from './rpc-metrics.ts';

/** Runs once per call, after its headers and before any byte of its body is read. Throws the ConnectError that refuses it. */
export type AccessGate = (context: HandlerContext) => Promise<void>;

export interface AccessGateOptions {
  authenticate: Authenticate;
  observe: Observe;
  logger: Logger;
  /** For services that are not ours and so carry no `required_role`. */
  requiredRole?: Access_Role;
}

/**
 * Puts the caller into the context under `principalKey`, or refuses: `unauthenticated` without a valid credential,
 * `permission_denied` when its role is less than the method's. A method that declares no role is refused to everybody.
 */
export function createAccessGate(options: AccessGateOptions): AccessGate {
  const { authenticate, observe, logger } = options;

  return async (context) => {
    const startedMs = performance.now();
    try {
      const principal = await authenticate(context.requestHeader.get('authorization'));
      requireRole(principal, options.requiredRole ?? roleOf(context.method), context.method);
      context.values.set(principalKey, principal);
    } catch (thrown) {
      const method = methodNameOf(context.method);
      const error = toConnectError(thrown, { method, signal: context.signal }, logger);
      if (error.code === Code.Unauthenticated) error.metadata.set('www-authenticate', 'Bearer');
      observe(method, codeToString(error.code), (performance.now() - startedMs) / 1000);
      throw error;
    }
  };
}

function requireRole(principal: Principal, required: Access_Role, method: DescMethod): void {
  if (required === Access_Role.ROLE_UNSPECIFIED) {
    throw new ConnectError(`${method.name} is open to nobody: it declares no role`, Code.PermissionDenied);
  }
  if (principal.role < required) {
    const message = `${method.name} needs the role ${roleName(required)}; this credential has ${roleName(principal.role)}`;
    throw new ConnectError(message, Code.PermissionDenied);
  }
}

const roles = new WeakMap<DescMethod, Access_Role>();

function roleOf(method: DescMethod): Access_Role {
  let role = roles.get(method);
  if (role === undefined) {
    role = getOption(method, required_role);
    roles.set(method, role);
  }
  return role;
}

function roleName(role: Access_Role): string {
  return Access_RoleSchema.value[role]?.name ?? String(role);
}
