import { type DescExtension, type DescFile, type DescService, toBinary } from '@bufbuild/protobuf';
import { nestedTypes } from '@bufbuild/protobuf/reflect';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';

/** What reflection needs to find a schema file. */
export interface DescriptorIndex {
  /** `harrier/v1/execution.proto`. */
  fileByName(name: string): DescFile | undefined;
  /** Full name of a message, enum, service, method, field or extension, without a leading dot. */
  fileBySymbol(name: string): DescFile | undefined;
  fileByExtension(extendee: string, fieldNumber: number): DescFile | undefined;
  extensionNumbers(extendee: string): number[];
  /** The file and everything it imports, imports first. */
  withImports(file: DescFile): DescFile[];
  encode(file: DescFile): Uint8Array;
}

export function createDescriptorIndex(services: readonly DescService[]): DescriptorIndex {
  const files = new Map<string, DescFile>();
  const symbols = new Map<string, DescFile>();
  const extensions = new Map<string, Map<number, DescExtension>>();
  const encoded = new Map<DescFile, Uint8Array>();

  for (const file of importsFirst(services.map((service) => service.file))) {
    files.set(file.proto.name, file);
    for (const type of nestedTypes(file)) {
      symbols.set(type.typeName, file);
      if (type.kind === 'message') for (const field of type.fields) symbols.set(`${type.typeName}.${field.name}`, file);
      if (type.kind === 'service')
        for (const method of type.methods) symbols.set(`${type.typeName}.${method.name}`, file);
      if (type.kind === 'extension') {
        const known = extensions.get(type.extendee.typeName) ?? new Map<number, DescExtension>();
        known.set(type.number, type);
        extensions.set(type.extendee.typeName, known);
      }
    }
  }

  return {
    fileByName: (name) => files.get(name),
    fileBySymbol: (name) => symbols.get(name),
    fileByExtension: (extendee, fieldNumber) => extensions.get(extendee)?.get(fieldNumber)?.file,
    extensionNumbers: (extendee) => [...(extensions.get(extendee)?.keys() ?? [])],
    withImports: (file) => importsFirst([file]),
    encode(file) {
      let bytes = encoded.get(file);
      if (bytes === undefined) {
        bytes = toBinary(FileDescriptorProtoSchema, file.proto);
        encoded.set(file, bytes);
      }
      return bytes;
    },
  };
}

function importsFirst(roots: readonly DescFile[]): DescFile[] {
  const ordered = new Set<DescFile>();
  const visit = (file: DescFile) => {
    if (ordered.has(file)) return;
    for (const imported of file.dependencies) visit(imported);
    ordered.add(file);
  };
  for (const root of roots) visit(root);
  return [...ordered];
}
