import { fileURLToPath } from 'node:url';
import { parentPort } from 'node:worker_threads';
import { Language, type Node, Parser } from 'web-tree-sitter';
import { topLevelNames } from './top-level-names.ts';

/** What a source text is found to be. */
export interface SourceFindings {
  /** The first place that is not Python; lines from 1. */
  fault: { line: number; text: string } | undefined;
  names: string[];
  /** Names may come from elsewhere too. */
  open: boolean;
}

const MAX_SHOWN_CHARACTERS = 80;

await Parser.init();
const parser = new Parser();
parser.setLanguage(
  await Language.load(fileURLToPath(import.meta.resolve('tree-sitter-python/tree-sitter-python.wasm'))),
);

parentPort?.on('message', (source: string) => {
  const tree = parser.parse(source);
  if (tree === null) throw new Error('the parser gave no tree');
  const { names, open } = topLevelNames(tree.rootNode);
  const line = tree.rootNode.hasError ? firstFaultyRow(tree.rootNode) : undefined;
  const findings: SourceFindings = {
    fault:
      line === undefined
        ? undefined
        : { line: line + 1, text: (source.split('\n')[line] ?? '').trim().slice(0, MAX_SHOWN_CHARACTERS) },
    names: [...names],
    open,
  };
  tree.delete();
  parentPort?.postMessage(findings);
});

/** Where the parser stumbled first. An error holds what came before it and could not be put together; it is at its end. */
function firstFaultyRow(node: Node): number | undefined {
  for (const child of node.children) {
    const row = child.hasError || child.isMissing ? firstFaultyRow(child) : undefined;
    if (row !== undefined) return row;
  }
  if (node.isMissing) return node.startPosition.row;
  return node.isError ? (node.lastChild ?? node).startPosition.row : undefined;
}
