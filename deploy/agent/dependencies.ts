/** What `package-lock.json` says of a package, as far as it matters here. */
export interface LockedPackage {
  dependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
  peerDependenciesMeta?: Record<string, { optional?: boolean }>;
  /** A workspace: `resolved` is its folder. */
  link?: boolean;
  resolved?: string;
}

export type LockedPackages = Readonly<Record<string, LockedPackage>>;

/** Types of Node.js that some packages name as a dependency of theirs: nothing of them runs. */
const TYPES_ONLY = /^(@types\/.*|undici-types)$/;

/**
 * Everything that workspaces need when they run: folders below the root, workspaces themselves included. Optional dependencies are
 * left out: they are native code, compiled where they were installed.
 * @throws Error naming a dependency that the lock file does not have
 */
export function runtimeClosure(packages: LockedPackages, workspaces: readonly string[]): string[] {
  const found = new Set<string>();
  const open = [...workspaces];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    if (found.has(folder)) continue;
    found.add(folder);
    for (const name of neededBy(packages[folder] ?? {})) {
      const at = resolveFrom(packages, folder, name);
      if (at === undefined)
        throw new Error(`package-lock.json has no ${name}, which ${folder} needs; run: npm install`);
      open.push(at);
    }
  }
  return [...found].toSorted();
}

function neededBy({ dependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} }: LockedPackage): string[] {
  const peers = Object.keys(peerDependencies).filter((name) => peerDependenciesMeta[name]?.optional !== true);
  return [...Object.keys(dependencies), ...peers].filter((name) => !TYPES_ONLY.test(name));
}

/** As Node.js looks for it: in the folder's own `node_modules`, then in those above. */
function resolveFrom(packages: LockedPackages, folder: string, name: string): string | undefined {
  for (let above: string | undefined = folder; above !== undefined; above = parentOf(above)) {
    const at = `${above === '' ? '' : `${above}/`}node_modules/${name}`;
    const found = packages[at];
    if (found !== undefined) return found.link === true ? found.resolved : at;
  }
  return undefined;
}

function parentOf(folder: string): string | undefined {
  if (folder === '') return undefined;
  const nested = folder.lastIndexOf('/node_modules/');
  return nested === -1 ? '' : folder.slice(0, nested);
}
