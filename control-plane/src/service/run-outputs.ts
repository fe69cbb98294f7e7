import { readOutputs, sizesOfOutputs } from '../db/queries/read-executions.ts';
import { type ListedNodeRow, readNodeOutputs } from '../db/queries/workflow-runs.ts';
import type { Sql } from '../db/sql.ts';
import type { Graph } from '../workflow/graph.ts';
import type { StoredInstance } from '../workflow/restore.ts';
import { isFinal, itemPath, nodeOf } from '../workflow/run-state.ts';
import { decodeInstance } from '../workflow/stored-step.ts';

/** Of the outputs in one answer, as JSON text: as much as the expressions of a node may read. */
export const MAX_OUTPUTS_BYTES = 16 * 1024 * 1024;

/** The output of a node as it is told; where there would be too much, how large it is. */
export type ToldOutput = { outputJson: string } | { omittedOutputBytes: bigint };

/** Where a text is: with an execution, or with the node of that path. */
interface Piece {
  path: string;
  executionId: string | undefined;
}

/** What an output is made of; undefined pieces are null. */
interface Wanted {
  path: string;
  /** Of a map: its output is a list of them. */
  isList: boolean;
  pieces: readonly (Piece | undefined)[];
}

/**
 * Outputs of nodes of a run, in their order, as many as fit. Sizes are read first, and only texts that are told.
 * @param rows all nodes of the run that were reached. @param paths of those whose outputs are wanted; none: of all
 */
export async function readRunOutputs(
  sql: Sql,
  { tenantId, runId, graph }: { tenantId: string; runId: string; graph: Graph },
  rows: readonly ListedNodeRow[],
  paths: readonly string[],
): Promise<Map<string, ToldOutput>> {
  const instances = new Map(rows.map((row) => [row.path, instanceOf(row)]));
  const asked = new Set(paths);
  const wanted = [...instances.values()].flatMap((instance) =>
    asked.size === 0 || asked.has(instance.path) ? (wantedOf(instance, instances, graph) ?? []) : [],
  );
  const bytesAt = new Map(rows.map((row) => [row.path, row.output_bytes ?? 0]));
  const bytesOf = await sizesOfOutputs(sql, tenantId, executionsOf(wanted));
  const size = ({ path, executionId }: Piece) =>
    executionId === undefined ? bytesAt.get(path) : bytesOf.get(executionId);

  const told = new Map<string, ToldOutput>();
  const fitting: Wanted[] = [];
  let leftBytes = MAX_OUTPUTS_BYTES;
  for (const one of wanted) {
    const bytes = sizeOf(one, size);
    if (bytes <= leftBytes) {
      leftBytes -= bytes;
      fitting.push(one);
    } else told.set(one.path, { omittedOutputBytes: BigInt(bytes) });
  }

  const kept = fitting.flatMap(({ pieces }) =>
    pieces.flatMap((piece) => (piece?.executionId === undefined ? (piece?.path ?? []) : [])),
  );
  const [textAt, textOf] = await Promise.all([
    readNodeOutputs(sql, tenantId, runId, [...new Set(kept)]),
    readOutputs(sql, tenantId, executionsOf(fitting)),
  ]);
  for (const { path, isList, pieces } of fitting) {
    const texts = pieces.map((piece) =>
      piece?.executionId === undefined ? textAt.get(piece?.path ?? '') : textOf.get(piece.executionId),
    );
    told.set(path, { outputJson: isList ? `[${texts.map((text) => text ?? 'null').join(',')}]` : (texts[0] ?? '') });
  }
  return told;
}

function instanceOf(row: ListedNodeRow): StoredInstance {
  // Its text was not read; that there is one is what counts.
  return decodeInstance({ ...row, input_json: null, output_json: row.output_bytes === null ? null : '' });
}

/** Undefined: it has none. */
function wantedOf(
  instance: StoredInstance,
  instances: ReadonlyMap<string, StoredInstance>,
  graph: Graph,
): Wanted | undefined {
  const { path, state, items = 0, item } = instance;
  if (item !== undefined || nodeOf(graph, path)?.kind !== 'map') {
    const piece = pieceOf(instance);
    return piece === undefined ? undefined : { path, isList: false, pieces: [piece] };
  }
  if (state !== 'SUCCEEDED') return undefined;
  return {
    path,
    isList: true,
    pieces: Array.from({ length: items }, (_, i) => pieceOf(instances.get(itemPath(path, i)))),
  };
}

function pieceOf(instance: StoredInstance | undefined): Piece | undefined {
  if (instance?.output === undefined || !isFinal(instance.state)) return undefined;
  const { path, output } = instance;
  return { path, executionId: 'json' in output ? undefined : output.executionId };
}

function executionsOf(wanted: readonly Wanted[]): string[] {
  return [...new Set(wanted.flatMap(({ pieces }) => pieces.flatMap((piece) => piece?.executionId ?? [])))];
}

/** What is not kept any more is told as nothing, and within a list as null. */
function sizeOf({ isList, pieces }: Wanted, size: (piece: Piece) => number | undefined): number {
  const sizes = pieces.map((piece) => (piece === undefined ? undefined : size(piece)));
  if (!isList) return sizes[0] ?? 0;
  return sizes.reduce<number>(
    (sum, bytes) => sum + (bytes ?? 'null'.length),
    '[]'.length + Math.max(0, sizes.length - 1),
  );
}
