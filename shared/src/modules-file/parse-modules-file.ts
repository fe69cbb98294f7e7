import { isMap, isSeq } from 'yaml';
import { MapReader } from '../yaml-file/map-reader.ts';
import { byPosition, type FileProblem } from '../yaml-file/problem.ts';
import { YamlSource } from '../yaml-file/yaml-source.ts';
import { type FileModule, readModule } from './read-module.ts';

export interface ParsedModules {
  modules: FileModule[];
  /** All of them, by their place in the file. Not empty: the modules are not to be used. */
  problems: FileProblem[];
}

/** Reads the text of a modules file: a map with `modules`, a list of `name, env, code|path, version, tags, …`. */
export function parseModulesFile(text: string): ParsedModules {
  const source = new YamlSource(text);
  const modules = source.problems.length > 0 ? [] : readAll(source);
  return { modules, problems: source.problems.toSorted(byPosition) };
}

function readAll(source: YamlSource): FileModule[] {
  const root = source.document.contents;
  if (!isMap(root)) {
    source.report(root, 'a modules file is a map with the key `modules`');
    return [];
  }
  const list = source.resolve(root.get('modules', true));
  const fields = new MapReader(source, root, '');
  const given = fields.has('modules');
  fields.finish();
  if (!given) return [];
  if (!isSeq(list)) {
    source.report(list, 'modules: must be a list');
    return [];
  }
  const modules: FileModule[] = [];
  for (const [index, item] of list.items.entries()) {
    const node = source.resolve(item);
    if (isMap(node)) {
      const before = source.problems.length;
      const entry = readModule(new MapReader(source, node, `modules[${index}]`));
      entry.incomplete = source.problems.length > before;
      modules.push(entry);
    } else source.report(item, `modules[${index}]: must be a map with name, version and code or path`);
  }
  reportRepeated(source, modules);
  return modules;
}

function reportRepeated(source: YamlSource, modules: readonly FileModule[]): void {
  const seen = new Map<string, FileModule>();
  for (const entry of modules) {
    const { name, version } = entry.module;
    const key = `${name} ${version}`;
    const first = seen.get(key);
    seen.set(key, first ?? entry);
    if (first === undefined || name === '' || version === '') continue;
    source.problems.push({
      position: entry.positionOf('version'),
      message: `${entry.path}.version: ${key} is already in line ${first.positionOf('version').line}`,
    });
  }
}
