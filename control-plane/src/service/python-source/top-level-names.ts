import type { Node } from 'web-tree-sitter';

/** What a module binds at its top level, as far as its text tells. */
export interface TopLevel {
  names: Set<string>;
  /** Names may come from elsewhere too: `from x import *`, `exec`, `globals()`. */
  open: boolean;
}

/** Statements whose blocks belong to the scope around them. */
const BLOCKS = new Set([
  'if_statement',
  'elif_clause',
  'else_clause',
  'try_statement',
  'except_clause',
  'except_group_clause',
  'finally_clause',
  'with_statement',
  'for_statement',
  'while_statement',
  'match_statement',
  'case_clause',
  'block',
  'module',
  'expression_statement',
  'parenthesized_expression',
]);
const MAKES_NAMES = new Set(['exec', 'eval', 'globals', 'locals', 'vars', 'setattr']);

/** The names that a Python module binds when it is loaded: functions, classes, assignments, imports. */
export function topLevelNames(root: Node): TopLevel {
  const found: TopLevel = { names: new Set(), open: false };
  for (const call of root.descendantsOfType('call')) {
    if (MAKES_NAMES.has(call.childForFieldName('function')?.text ?? '')) found.open = true;
  }
  // A function can bind a name of the module: `global handler`.
  for (const statement of root.descendantsOfType('global_statement')) {
    for (const name of statement.namedChildren) found.names.add(name.text);
  }
  collect(root, found);
  return found;
}

function collect(node: Node, found: TopLevel): void {
  for (const child of node.namedChildren) {
    switch (child.type) {
      case 'function_definition':
      case 'class_definition':
        add(child.childForFieldName('name'), found);
        break;
      case 'decorated_definition':
        collect(child, found);
        break;
      case 'import_statement':
      case 'import_from_statement':
        addImports(child, found);
        break;
      case 'assignment':
      case 'augmented_assignment':
        addTargets(child.childForFieldName('left'), found);
        // a = b = value
        collect(child, found);
        break;
      case 'named_expression':
        add(child.childForFieldName('name'), found);
        break;
      case 'type_alias_statement':
        addTargets(child.childForFieldName('left'), found);
        break;
      case 'as_pattern':
        addTargets(child.childForFieldName('alias'), found);
        break;
      default:
        if (child.type === 'for_statement') addTargets(child.childForFieldName('left'), found);
        if (BLOCKS.has(child.type) || child.type === 'with_clause' || child.type === 'with_item') collect(child, found);
    }
  }
}

function addImports(statement: Node, found: TopLevel): void {
  if (statement.namedChildren.some(({ type }) => type === 'wildcard_import')) found.open = true;
  const module = statement.childForFieldName('module_name');
  for (const child of statement.namedChildren) {
    if (module !== null && child.equals(module)) continue;
    if (child.type === 'aliased_import') add(child.childForFieldName('alias'), found);
    // `import a.b` binds a.
    else if (child.type === 'dotted_name') add(child.namedChildren[0] ?? null, found);
  }
}

function addTargets(target: Node | null, found: TopLevel): void {
  if (target === null) return;
  if (target.type === 'identifier') found.names.add(target.text);
  else if (!['attribute', 'subscript'].includes(target.type)) {
    for (const part of target.namedChildren) addTargets(part, found);
  }
}

function add(name: Node | null, found: TopLevel): void {
  if (name !== null) found.names.add(name.text);
}
