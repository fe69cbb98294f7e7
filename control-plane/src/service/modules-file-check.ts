import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator } from '@bufbuild/protovalidate';
import { ModuleSchema } from '@harrier/shared/gen/module';
import { byPosition, type FileModule, type FileProblem, type ModulesFile } from '@harrier/shared/modules-file';
import type { ModuleService } from './module-service.ts';

/**
 * Everything that is wrong with a modules file, at its place: its form, and what the registry would refuse of its modules.
 * Nothing is registered.
 */
export async function checkModules(
  file: ModulesFile,
  { modules, tenantId }: { modules: Pick<ModuleService, 'problems'>; tenantId: string },
): Promise<FileProblem[]> {
  const validator = createValidator();
  const problems = [...file.problems];
  for (const entry of file.modules) {
    const found = validator.validate(ModuleSchema, entry.module);
    if (found.kind === 'error') throw found.error;
    const violations = found.kind === 'invalid' ? found.violations : [];
    for (const { field, message } of violations) addProblem(problems, entry, pathToString(field), message);
    for (const { code, field = '', message } of await modules.problems(tenantId, entry.module)) {
      // A field that could not be read makes it another content than the one that was meant.
      if (code === 'already_exists' && entry.incomplete) continue;
      const text = message.replaceAll(/\bmodule\.(?=[a-z_]+)/g, '');
      addProblem(problems, entry, field.replace(/^module\.?/, ''), text);
    }
  }
  return problems.toSorted(byPosition);
}

/** One problem a place is enough: what could not be read is absent, and what breaks one rule often breaks the next. */
function addProblem(problems: FileProblem[], entry: FileModule, field: string, message: string): void {
  const position = entry.positionOf(field);
  const isKnown = problems.some(
    ({ position: known }) => known?.line === position.line && known.column === position.column,
  );
  if (!isKnown) problems.push({ position, message: `${entry.nameOf(field)}: ${message}` });
}
