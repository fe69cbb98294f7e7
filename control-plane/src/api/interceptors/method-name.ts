import type { DescMethod } from '@bufbuild/protobuf';

const names = new WeakMap<DescMethod, string>();

/** `harrier.v1.ExecutionService/Execute`: the name of a method in metrics and logs. */
export function methodNameOf(method: DescMethod): string {
  let name = names.get(method);
  if (name === undefined) {
    name = `${method.parent.typeName}/${method.name}`;
    names.set(method, name);
  }
  return name;
}
