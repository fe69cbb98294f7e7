/** What placement needs to know of a linked agent. */
export interface Candidate {
  id: string;
  name: string;
  tenantId: string;
  labels: Readonly<Record<string, string>>;
  environments: ReadonlySet<string>;
  /** Executions at once, at most. */
  slots: number;
  /** Slots in use. */
  active: number;
  draining: boolean;
}
