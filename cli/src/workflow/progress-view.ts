import type { WorkflowRunNode } from '@harrier/shared/gen/workflow';
import { write } from '../output/terminal.ts';
import { type Outline, RunNodes } from './outline.ts';
import { drawProgress } from './progress.ts';

/** Between two drawings: a run of thousands of nodes has more changes than anybody sees. */
const PAUSE_MS = 50;
/** Of a terminal that does not say it. */
const ROWS = 24;
const COLUMNS = 80;

/** The nodes of a run on a terminal, drawn as they change. */
export class ProgressView {
  readonly #nodes: RunNodes;
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;
  #drawing: Promise<void> = Promise.resolve();

  constructor(outline: Outline) {
    this.#nodes = new RunNodes(outline);
    this.#drawSoon();
  }

  set(node: WorkflowRunNode): void {
    this.#nodes.set(node);
    this.#drawSoon();
  }

  /** Draws what is not drawn yet; what is written afterwards stands below it. */
  async end(): Promise<void> {
    if (this.#timer !== undefined) {
      clearTimeout(this.#timer);
      this.#draw();
    }
    await this.#drawing;
  }

  #drawSoon(): void {
    this.#timer ??= setTimeout(() => this.#draw(), PAUSE_MS);
  }

  #draw(): void {
    this.#timer = undefined;
    const size = { rows: process.stdout.rows || ROWS, columns: process.stdout.columns || COLUMNS };
    const { text, drawn } = drawProgress(this.#nodes.rows(), this.#drawn, size);
    this.#drawn = drawn;
    this.#drawing = this.#drawing.then(() => write(text));
  }
}
