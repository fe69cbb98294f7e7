import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { toBinary } from '@bufbuild/protobuf';
import { FileWatcher, HarrierError, type Logger, messageOf } from '@harrier/shared';
import { type Module, ModuleSchema, Module_Source as ModuleSource } from '@harrier/shared/gen/module';
import { type FileProblem, formatProblem, loadModulesFile, type ModulesFile } from '@harrier/shared/modules-file';
import type { ModuleService } from './module-service.ts';
import { checkModules } from './modules-file-check.ts';

export interface ModulesFileOptions {
  /** Absolute path. */
  path: string;
  tenantId: string;
  modules: Pick<ModuleService, 'problems' | 'create'>;
  logger: Logger;
}

export interface FollowedModulesFile {
  stop(): Promise<void>;
}

/**
 * Registers the modules of a file, all or none, and again whenever the file or a code file that it names changes. A change
 * that is not right leaves the registry as it is; its problems are logged. Modules that leave the file stay registered:
 * nobody but a caller of the API deletes any.
 * @throws HarrierError failed_precondition with every problem, when the file is not right at the start
 */
export async function followModulesFile(options: ModulesFileOptions): Promise<FollowedModulesFile> {
  const { path, logger } = options;
  let seen = '';
  const watcher = new FileWatcher({ onChange: reload, logger });

  async function load(): Promise<{ file: ModulesFile; problems: FileProblem[] } | undefined> {
    const file = await loadModulesFile(path);
    // Also when it is wrong: the cure may be in a code file.
    watcher.watch([path, ...file.codeFiles]);
    const content = await fingerprint(path, file);
    if (content === seen) return undefined;
    seen = content;
    const problems = await checkModules(file, options);
    if (problems.length === 0) await registerAll(file);
    return { file, problems };
  }

  async function registerAll(file: ModulesFile): Promise<void> {
    for (const { module } of file.modules) await options.modules.create(options.tenantId, module, ModuleSource.FILE);
    logger.info({ file: path, modules: file.modules.length }, 'modules file is registered');
  }

  async function reload(): Promise<void> {
    try {
      const problems = (await load())?.problems ?? [];
      for (const problem of problems) logger.error({ file: path }, formatProblem(path, problem));
      if (problems.length > 0)
        logger.error({ file: path }, 'the modules file was not registered; what was before stays');
    } catch (error) {
      seen = '';
      logger.error({ file: path, err: error }, `the modules file could not be registered: ${messageOf(error)}`);
    }
  }

  try {
    const problems = (await load())?.problems ?? [];
    if (problems.length > 0) throw startError(path, problems);
  } catch (error) {
    await watcher.close();
    throw error;
  }
  return { stop: () => watcher.close() };
}

function startError(path: string, problems: readonly FileProblem[]): HarrierError {
  const lines = problems.map((problem) => formatProblem(path, problem)).join('\n  ');
  return new HarrierError('failed_precondition', `the modules file is not right:\n  ${lines}`);
}

function digestOf(module: Module): string {
  return createHash('sha256').update(toBinary(ModuleSchema, module)).digest('hex');
}

/** Everything that was read, so that an event without a change registers nothing. */
async function fingerprint(path: string, file: ModulesFile): Promise<string> {
  const text = await readFile(path, 'utf8').catch(messageOf);
  return JSON.stringify([text, file.modules.map(({ module }) => digestOf(module)), file.problems]);
}
