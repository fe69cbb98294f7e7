import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from './workspace.ts';

/** So many blocks. */
interface Blocks {
  1: [string];
  2: [string, string];
  3: [string, string, string];
}

/** The commands of a page of docs/operations, as they stand there. */
export class Runbook {
  readonly #page: string;
  readonly #text: string;

  /** @param page name of the file, without its ending */
  constructor(page: string) {
    this.#page = page;
    this.#text = readFileSync(join(REPOSITORY, 'docs/operations', `${page}.md`), 'utf8');
  }

  /** Headings of the sections that have commands, in order; for a test that no step of the page is left out. */
  get steps(): string[] {
    return this.#sections()
      .filter(({ body }) => blocksOf(body).length > 0)
      .map(({ heading }) => heading);
  }

  /**
   * What a section has in its blocks of code, one after the other.
   * @throws Error when there is no such section, or when it has another number of them
   */
  blocks<Count extends keyof Blocks>(heading: string, count: Count): Blocks[Count] {
    const section = this.#sections().find((one) => one.heading === heading);
    if (section === undefined) throw new Error(`${this.#page}.md has no section "${heading}"`);
    const blocks = blocksOf(section.body);
    if (blocks.length !== count)
      throw new Error(`"${heading}" of ${this.#page}.md has ${blocks.length} blocks, not ${count}`);
    return blocks as unknown as Blocks[Count];
  }

  #sections(): { heading: string; body: string }[] {
    const [, ...sections] = this.#text.split(/^##+ /m);
    return sections.map((text) => ({
      heading: text.slice(0, text.indexOf('\n')),
      body: text.slice(text.indexOf('\n')),
    }));
  }
}

/** Fenced code of any language. */
function blocksOf(text: string): string[] {
  return [...text.matchAll(/^```\w+\n([\s\S]*?)^```$/gm)].map(([, code = '']) => code);
}
