import { createContextKey, type HandlerContext } from '@connectrpc/connect';
import { HarrierError } from '@harrier/shared';
import type { Access_Role } from '@harrier/shared/gen/options';

/** Who calls: what a valid credential stands for. */
export interface Principal {
  tenantId: string;
  tenantName?: string;
  role: Access_Role;
  /** Id of the API key, for audit and logs; never the key. */
  keyId: string;
}

/**
 * Turns the value of the `authorization` header into the caller. Rejects with `unauthenticated` when it is absent,
 * malformed, unknown, expired or revoked.
 */
export type Authenticate = (authorizationHeader: string | null) => Promise<Principal>;

/** Set before any service is called; reading it without a check is a defect in the wiring. */
export const principalKey = createContextKey<Principal | undefined>(undefined, { description: 'principal' });

/** The caller, put there by the access gate. */
export function callerOf(context: HandlerContext): Principal {
  const principal = context.values.get(principalKey);
  if (principal === undefined) throw new HarrierError('internal', `${context.method.name} ran without an access check`);
  return principal;
}
