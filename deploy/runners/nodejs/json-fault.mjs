// What JSON.stringify would drop, change or refuse in a value, with its path.

/** As deep as JSON parsers on the way accept (protobuf's own limit is 100). */
const MAX_DEPTH = 100;
const IDENTIFIER = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;

/**
 * The first fault of a function's result in document order, or undefined when it is an object of JSON values. Walks with its
 * own stack: the value may be deeper than that of the interpreter.
 */
export function findFault(root) {
  if (typeof root !== 'object' || root === null || Array.isArray(root)) {
    return `$: the handler returned ${nameOf(root)}, not an object`;
  }
  const stack = [{ value: root, key: '', path: '$', parents: undefined, depth: 0 }];
  while (stack.length > 0) {
    const at = stack.pop();
    const value = inJson(at.value, at.key);
    const fault = faultOf(value, at);
    if (fault !== undefined) return `${at.path.slice(0, 200)}: ${fault}`;
    if (typeof value !== 'object' || value === null) continue;
    const parents = { value, above: at.parents };
    const children = Array.isArray(value) ? elements(value, at.path) : members(value, at.path);
    for (const child of children.reverse()) stack.push({ ...child, parents, depth: at.depth + 1 });
  }
  return undefined;
}

/** Dates and the like say themselves what stands for them. */
function inJson(value, key) {
  return typeof value?.toJSON === 'function' ? value.toJSON(key) : value;
}

function faultOf(value, { parents, depth }) {
  switch (typeof value) {
    case 'boolean':
      return undefined;
    case 'string':
      return value.isWellFormed() ? undefined : 'a string with a lone surrogate is not valid Unicode';
    case 'number':
      return Number.isFinite(value) ? undefined : `${value} is not a JSON number`;
    case 'object':
      break;
    default:
      return `${nameOf(value)} is not a JSON value`;
  }
  if (value === null) return undefined;
  for (let at = parents; at !== undefined; at = at.above) if (at.value === value) return 'the value contains itself';
  if (depth >= MAX_DEPTH) return `nested deeper than ${MAX_DEPTH} levels`;
  // Of a Map or a Promise, JSON.stringify would make an empty object.
  const tag = Object.prototype.toString.call(value);
  if (tag !== '[object Object]' && !Array.isArray(value)) return `${nameOf(value)} is not a JSON value`;
  const wrong = Object.keys(value).find((key) => !key.isWellFormed());
  return wrong === undefined ? undefined : `the key ${JSON.stringify(wrong)} has a lone surrogate`;
}

function elements(array, path) {
  return Array.from(array, (value, index) => ({ value, key: String(index), path: `${path}[${index}]` }));
}

function members(object, path) {
  return Object.entries(object).map(([key, value]) => {
    return { value, key, path: path + (IDENTIFIER.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`) };
  });
}

function nameOf(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  const type = typeof value;
  return `a value of type ${type === 'object' ? Object.prototype.toString.call(value).slice(8, -1) : type}`;
}
