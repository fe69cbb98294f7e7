/** The idempotency key of a try: the run, the path with the index in each map, and the number of the try. */
export function executionKey(runId: string, path: string, tries: number): string {
  return `workflow/${runId}/${path}#${tries}`;
}
