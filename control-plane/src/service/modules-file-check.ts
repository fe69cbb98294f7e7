import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator } from '@bufbuild/protovalidate';
import { HarrierError } from '@harrier/shared';
import { ModuleSchema } from '@harrier/shared/gen/module';
import type { FileModule, FileProblem } from '@harrier/shared/modules-file';
import type { ModuleService } from './module-service.ts';

/** What the registry would refuse of the modules of a file, at the place in the file; nothing is registered. */
export async function checkModules(
  entries: readonly FileModule[],
  { modules, tenantId }: { modules: Pick<ModuleService, 'check'>; tenantId: string },
): Promise<FileProblem[]> {
  const validator = createValidator();
  const problems: FileProblem[] = [];
  for (const entry of entries) {
    const found = validator.validate(ModuleSchema, entry.module);
    if (found.kind === 'error') throw found.error;
    if (found.kind === 'invalid') {
      for (const { field, message } of found.violations) problems.push(problemOf(entry, pathToString(field), message));
      continue;
    }
    try {
      await modules.check(tenantId, entry.module);
    } catch (error) {
      if (!(error instanceof HarrierError)) throw error;
      const field = (error.field ?? '').replace(/^module\.?/, '');
      problems.push(problemOf(entry, field, error.message.replaceAll(/\bmodule\.(?=[a-z_]+)/g, '')));
    }
  }
  return problems;
}

function problemOf(entry: FileModule, field: string, message: string): FileProblem {
  return { position: entry.positionOf(field), message: `${entry.nameOf(field)}: ${message}` };
}
