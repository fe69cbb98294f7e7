/** What placement needs to know of a linked agent. */
export interface Candidate {
  id: string;
  name: string;
  tenantId: string;
  labels: Readonly<Record<string, string>>;
  /** What it can prepare: kinds of environments, and `nodejs`. */
  environments: ReadonlySet<string>;
  /** What it cannot, with the reason. */
  unavailableEnvironments: Readonly<Record<string, string>>;
  /** Executions at once, at most. */
  slots: number;
  /** Slots in use. */
  active: number;
  draining: boolean;
}
