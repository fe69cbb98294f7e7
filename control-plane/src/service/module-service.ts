import { createHash } from 'node:crypto';
import { clone, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { HarrierError, parseLabelSelector } from '@harrier/shared';
import {
  EnvironmentSchema,
  type ListModulesRequest,
  type Module,
  ModuleSchema,
  type Module_Source as ModuleSource,
} from '@harrier/shared/gen/module';
import {
  decideModuleLock,
  insertModule,
  listModules,
  listModuleVersions,
  type ModuleRow,
  readModule,
  readModuleById,
} from '../db/queries/modules.ts';
import { deleteVersions } from '../db/queries/versions.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { askedGpus, checkHardware, slurmJobOf } from './demand.ts';
import { checkDisconnect } from './disconnect-policy.ts';
import { millisecondsOf } from './duration.ts';
import { checkEnvironment, checkNetwork, isLockShared, lockedEnvironment } from './environment-spec.ts';
import { showable } from './json-document.ts';
import { checkSchema } from './json-schema.ts';
import { decodePageToken, encodePageToken, pageSizeOf, TEXT_SHAPE } from './page-token.ts';
import type { PythonSource } from './python-source/python-source.ts';
import { checkLookup, checkVersion, compareVersions, latestOf, optionalText } from './semantic-versions.ts';
import { refuseNul, STORED } from './storable.ts';
import { checkAllowed, checkSlurmAllowed, DEFAULT_TASK_CLASS, findTaskClass, type TaskClasses } from './task-class.ts';

/** A registered version and its key in the database. */
export interface StoredModule {
  id: string;
  /** As it was registered. */
  module: Module;
  /** Locks that were decided for it, by platform. */
  locks: Record<string, string>;
  /** The first of them. */
  firstLock: string | undefined;
}

/** How long a replica may go on with a version that another replica has replaced or deleted. */
const CACHE_MS = 1_000;
const CACHE_ENTRIES = 5_000;

/** The registry of modules. */
export class ModuleService {
  readonly #sql: Sql;
  readonly #python: PythonSource;
  readonly #classes: TaskClasses;
  readonly #onChanged: (tenantId: string, name: string, versionId: string) => void;
  /** Resolved names and versions; by id for what never changes. */
  readonly #resolved = new Map<string, { stored: StoredModule; untilMs: number }>();

  /** @param onChanged other replicas may hold what is not true any more of a name, or of a version that is named */
  constructor(
    sql: Sql,
    python: PythonSource,
    classes: TaskClasses,
    onChanged: (tenantId: string, name: string, versionId: string) => void,
  ) {
    this.#sql = sql;
    this.#python = python;
    this.#classes = classes;
    this.#onChanged = onChanged;
  }

  /** Throws what `create` would throw, and registers nothing. @throws HarrierError invalid_argument, already_exists */
  async check(tenantId: string, given: Module): Promise<void> {
    const [first] = await this.problems(tenantId, given);
    if (first !== undefined) throw first;
  }

  /** Everything for which `create` would refuse a module; registers nothing. */
  async problems(tenantId: string, given: Module): Promise<HarrierError[]> {
    const module = normalise(given);
    const problems: HarrierError[] = [];
    for (const check of this.#checks(module)) {
      try {
        await check();
      } catch (error) {
        if (!(error instanceof HarrierError)) throw error;
        problems.push(error);
      }
    }
    // A name or version that is none need not be looked up.
    if (problems.length > 0) return problems;
    const existing = await readModule(this.#sql, tenantId, module.name, module.version);
    return existing === undefined || existing.digest === digestOf(module) ? [] : [otherContent(module)];
  }

  /**
   * Registers a version. One that is there with the same content takes the description and the tags of this one.
   * @throws HarrierError invalid_argument, already_exists
   */
  async create(tenantId: string, given: Module, source: ModuleSource): Promise<Module> {
    const module = normalise(given);
    for (const check of this.#checks(module)) await check();
    const digest = digestOf(module);
    const { row, changed } = await insertModule(
      this.#sql,
      {
        id: uuidv7(),
        tenantId,
        name: module.name,
        version: module.version,
        environment: module.environment?.kind.case ?? 'inline',
        tags: module.tags,
        digest,
        source,
        definition: toBinary(ModuleSchema, module),
      },
      latestOf,
    );
    if (row.digest !== digest) throw otherContent(module);
    if (changed) {
      this.#forget(tenantId, module.name);
      this.#resolved.delete(`${tenantId} ${row.id}`);
      this.#onChanged(tenantId, module.name, row.id);
    }
    return shownModule(storedOf(row));
  }

  /** @throws HarrierError not_found, invalid_argument */
  async get(tenantId: string, name: string, version: string): Promise<Module> {
    return shownModule(await this.resolve(tenantId, name, version));
  }

  /**
   * As `get`, with the key; from memory when it was resolved a moment ago.
   * @param nameField the field of the request that names the module: what an error is about
   */
  async resolve(tenantId: string, name: string, version: string, nameField = 'name'): Promise<StoredModule> {
    const key = `${tenantId} ${name} ${version}`;
    const cached = this.#resolved.get(key);
    if (cached !== undefined && cached.untilMs > performance.now()) return cached.stored;
    checkLookup(name, version, nameField);
    const row = await readModule(this.#sql, tenantId, name, version === '' ? undefined : version);
    if (row === undefined) throw notFound(name, version, nameField);
    return this.#remember(key, row, CACHE_MS);
  }

  /** A version that an execution was accepted with, deleted since or not. */
  async resolveById(tenantId: string, id: string): Promise<StoredModule> {
    const key = `${tenantId} ${id}`;
    const cached = this.#resolved.get(key);
    if (cached !== undefined) return cached.stored;
    const row = await readModuleById(this.#sql, tenantId, id);
    if (row === undefined) throw new HarrierError('internal', `module ${id} of an execution is gone`);
    return this.#remember(key, row, Number.POSITIVE_INFINITY);
  }

  async list(tenantId: string, request: ListModulesRequest): Promise<{ modules: Module[]; nextPageToken: string }> {
    const limit = pageSizeOf(request.pageSize);
    const rows = await listModules(this.#sql, {
      tenantId,
      limit: limit + 1,
      after: decodePageToken(request.pageToken, [TEXT_SHAPE])?.[0],
      tag: optionalText(request.tag, 'tag'),
      environment: optionalText(request.environment, 'environment'),
      namePrefix: optionalText(request.namePrefix, 'name_prefix'),
    });
    return page(rows, limit, (row) => encodePageToken(row.name));
  }

  /** Newest first by semantic version. @throws HarrierError not_found */
  async listVersions(
    tenantId: string,
    name: string,
    pageSize: number,
    pageToken: string,
  ): Promise<{ modules: Module[]; nextPageToken: string }> {
    checkLookup(name, '');
    const rows = await listModuleVersions(this.#sql, tenantId, name);
    if (rows.length === 0) throw notFound(name, '');
    rows.sort((a, b) => compareVersions(b.version, a.version));
    const after = decodePageToken(pageToken, [TEXT_SHAPE])?.[0];
    const rest = after === undefined ? rows : rows.filter((row) => compareVersions(row.version, after) < 0);
    return page(rest, pageSizeOf(pageSize), (row) => encodePageToken(row.version));
  }

  /** @returns how many versions. @throws HarrierError not_found */
  async delete(tenantId: string, name: string, version: string): Promise<number> {
    checkLookup(name, version);
    const deleted = await deleteVersions(
      this.#sql,
      'modules',
      { tenantId, name, version: version === '' ? undefined : version },
      latestOf,
    );
    if (deleted === 0) throw notFound(name, version);
    this.#forget(tenantId, name);
    this.#onChanged(tenantId, name, '');
    return deleted;
  }

  /** Keeps the lock that was found first for a version on a platform. @returns what stands now */
  async decideLock(tenantId: string, { id, module }: StoredModule, lock: string, platform: string): Promise<string> {
    if (!isLockShared(module.environment, lock)) return lock;
    const decided = await decideModuleLock(this.#sql, { tenantId, moduleId: id, platform, lock });
    this.#forget(tenantId, module.name);
    this.#resolved.delete(`${tenantId} ${id}`);
    this.#onChanged(tenantId, module.name, id);
    return decided ?? lock;
  }

  /** Another replica has registered or deleted a version of this name, or decided the lock of one. */
  changedElsewhere(tenantId: string, name: string, versionId: string): void {
    this.#forget(tenantId, name);
    this.#resolved.delete(`${tenantId} ${versionId}`);
  }

  #checks(module: Module): (() => void | Promise<void>)[] {
    const { code, handler } = module;
    const checks: (() => void | Promise<void>)[] = checksOf(module, this.#classes);
    if (module.language === 'python') checks.push(() => this.#python.check(code, handler, 'module.code'));
    return checks;
  }

  #remember(key: string, row: ModuleRow, ms: number): StoredModule {
    const stored = storedOf(row);
    if (this.#resolved.size >= CACHE_ENTRIES) this.#resolved.clear();
    this.#resolved.set(key, { stored, untilMs: performance.now() + ms });
    return stored;
  }

  #forget(tenantId: string, name: string): void {
    const prefix = `${tenantId} ${name} `;
    for (const key of this.#resolved.keys()) if (key.startsWith(prefix)) this.#resolved.delete(key);
  }
}

function page(
  rows: ModuleRow[],
  limit: number,
  tokenOf: (last: ModuleRow) => string,
): { modules: Module[]; nextPageToken: string } {
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  return {
    modules: shown.map((row) => ({ ...shownModule(storedOf(row)), code: '' })),
    nextPageToken: rows.length > limit && last !== undefined ? tokenOf(last) : '',
  };
}

function storedOf(row: ModuleRow): StoredModule {
  const module = fromBinary(ModuleSchema, row.definition, STORED);
  module.createTime = timestampFromDate(row.create_time);
  module.digest = row.digest;
  module.source = row.source as ModuleSource;
  const locks = row.locks ?? [];
  return { id: row.id, module, locks: Object.fromEntries(locks), firstLock: locks[0]?.[1] };
}

/** As callers see it: with the lock that was found first, whatever the platform. */
function shownModule({ module, firstLock }: StoredModule): Module {
  const { environment, inputSchema, outputSchema } = module;
  const shown = { ...module };
  if (inputSchema !== undefined) shown.inputSchema = showable(inputSchema);
  if (outputSchema !== undefined) shown.outputSchema = showable(outputSchema);
  if (firstLock !== undefined && environment !== undefined) {
    shown.environment = lockedEnvironment(environment, firstLock);
  }
  return shown;
}

/** Defaults filled in, and what only the control plane sets left out. */
function normalise(given: Module): Module {
  const module = clone(ModuleSchema, given);
  module.language ||= 'python';
  module.handler ||= 'handler';
  module.taskClass ||= DEFAULT_TASK_CLASS;
  if (module.environment?.kind.case === undefined) {
    module.environment = create(EnvironmentSchema, { kind: { case: 'inline', value: {} } });
  }
  delete module.createTime;
  module.digest = '';
  module.source = 0;
  return module;
}

/** Each throws HarrierError invalid_argument for one aspect of a module. */
function checksOf(module: Module, classes: TaskClasses): (() => void)[] {
  const { environment, language, preload, inputSchema, outputSchema } = module;
  return [
    () => checkVersion(module.version, 'module.version'),
    () => checkTaskClass(module, classes),
    () => parseLabelSelector(module.agentSelector, 'module.agent_selector'),
    () => inputSchema !== undefined && checkSchema(inputSchema, 'module.input_schema'),
    () => outputSchema !== undefined && checkSchema(outputSchema, 'module.output_schema'),
    () => checkEnvironment(environment, { language, preload }, 'module.environment'),
    () => checkNetwork(module.limits, 'module.limits'),
    () => checkReuse(module),
    () => checkDisconnect(module),
    () => refuseNul('module.code', module.code),
    () => refuseNul('module.concurrency.key', module.concurrency?.key ?? ''),
    ...module.tags.map((tag, i) => () => refuseNul(`module.tags[${i}]`, tag)),
  ];
}

function checkTaskClass(module: Module, classes: TaskClasses): void {
  const { limits, timeout, environment, reuse } = module;
  const taskClass = findTaskClass(classes, module.taskClass, 'module.task_class');
  const kind = environment?.kind.case ?? 'inline';
  const timeoutMs = timeout === undefined ? undefined : millisecondsOf(timeout);
  checkAllowed(taskClass, { timeoutMs, limits, environment: kind }, 'module.');
  const slurm = slurmJobOf(undefined, module.slurm, taskClass);
  checkSlurmAllowed(taskClass, slurm, 'module.');
  checkHardware(askedGpus([limits], taskClass), slurm, { environment: kind, reuse }, 'module.');
}

/** Only Python has interpreters that serve one call after another. */
function checkReuse({ reuse, language }: Module): void {
  if (!reuse || language === 'python') return;
  throw new HarrierError('invalid_argument', `module.reuse is for Python; "${language}" starts anew for every call`, {
    field: 'module.reuse',
  });
}

/** Of everything that shapes what runs; a better description is not other content. */
function digestOf(module: Module): string {
  const content = clone(ModuleSchema, module);
  content.description = '';
  content.tags = [];
  return createHash('sha256').update(toBinary(ModuleSchema, content)).digest('hex');
}

function notFound(name: string, version: string, nameField = 'name'): HarrierError {
  return version === ''
    ? new HarrierError('not_found', `there is no module "${name}"`, { field: nameField })
    : new HarrierError('not_found', `there is no module "${name}" ${version}`, { field: 'version' });
}

function otherContent({ name, version }: Module): HarrierError {
  return new HarrierError(
    'already_exists',
    `module ${name} ${version} exists with other content; versions never change, register a new one`,
    { field: 'module.version' },
  );
}
