import { type Document, isAlias, LineCounter, type Node, parseDocument, visit } from 'yaml';
import type { FileProblem, Position } from './problem.ts';

/** A parsed YAML text that knows where each of its nodes stands, and gathers what is wrong with them. */
export class YamlSource {
  readonly problems: FileProblem[] = [];
  readonly document: Document.Parsed;
  readonly #lines = new LineCounter();

  constructor(text: string) {
    this.document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    for (const { pos, message } of [...this.document.errors, ...this.document.warnings]) {
      this.problems.push({ position: this.#at(pos[0]), message: `this is not YAML: ${message}` });
    }
    visit(this.document, {
      Alias: (_key, alias) => {
        if (alias.resolve(this.document) === undefined)
          this.report(alias, `there is no anchor "${alias.source}" before it`);
      },
    });
  }

  positionOf(node: unknown): Position {
    return this.#at((node as Node | null)?.range?.[0] ?? 0);
  }

  /** What an alias stands for; any other node itself. */
  resolve(node: unknown): unknown {
    return isAlias(node) ? node.resolve(this.document) : node;
  }

  report(node: unknown, message: string): void {
    this.problems.push({ position: this.positionOf(node), message });
  }

  #at(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    return { line, column: col };
  }
}
