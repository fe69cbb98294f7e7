import type { DescFile, DescService, MessageInitShape } from '@bufbuild/protobuf';
import { Code, type ServiceImpl } from '@connectrpc/connect';
import type {
  ServerReflection,
  ServerReflectionRequest,
  ServerReflectionResponseSchema,
} from '@harrier/shared/gen/grpc/reflection/v1/reflection';
import type { ServerReflection as ServerReflectionV1Alpha } from '@harrier/shared/gen/grpc/reflection/v1alpha/reflection';
import { createDescriptorIndex, type DescriptorIndex } from './descriptor-index.ts';

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>['messageResponse']>;
type Question = ServerReflectionRequest['messageRequest'];

/**
 * gRPC server reflection (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md). Both published versions are
 * the same on the wire and are served by the same code. It needs a credential like every call that tells something.
 */
export function createReflection(
  services: readonly DescService[],
): ServiceImpl<typeof ServerReflection> & ServiceImpl<typeof ServerReflectionV1Alpha> {
  const index = createDescriptorIndex(services);
  const names = services.map((service) => ({ name: service.typeName }));

  const implementation: ServiceImpl<typeof ServerReflection> = {
    async *serverReflectionInfo(requests) {
      // A client gets each file once per stream.
      const sent = new Set<DescFile>();
      for await (const request of requests) {
        const messageResponse = answer(request.messageRequest, index, names, sent);
        yield { validHost: request.host, originalRequest: request, messageResponse };
      }
    },
  };
  // The two versions differ in nothing but the name of their package.
  return implementation as typeof implementation & ServiceImpl<typeof ServerReflectionV1Alpha>;
}

function answer(question: Question, index: DescriptorIndex, names: { name: string }[], sent: Set<DescFile>): Answer {
  switch (question.case) {
    case 'listServices':
      return { case: 'listServicesResponse', value: { service: names } };
    case 'fileByFilename':
      return files(index.fileByName(question.value), `file ${question.value}`, index, sent);
    case 'fileContainingSymbol':
      return files(index.fileBySymbol(question.value), `symbol ${question.value}`, index, sent);
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = question.value;
      const file = index.fileByExtension(containingType, extensionNumber);
      return files(file, `extension ${extensionNumber} of ${containingType}`, index, sent);
    }
    case 'allExtensionNumbersOfType': {
      const extensionNumber = index.extensionNumbers(question.value);
      if (extensionNumber.length === 0 && index.fileBySymbol(question.value) === undefined) {
        return failure(Code.NotFound, `unknown type ${question.value}`);
      }
      return { case: 'allExtensionNumbersResponse', value: { baseTypeName: question.value, extensionNumber } };
    }
    case undefined:
      return failure(Code.InvalidArgument, 'message_request is not set');
  }
}

function files(file: DescFile | undefined, asked: string, index: DescriptorIndex, sent: Set<DescFile>): Answer {
  if (file === undefined) return failure(Code.NotFound, `unknown ${asked}`);
  // The file asked for comes first and always: clients take the first as the answer.
  const wanted = index.withImports(file).filter((imported) => imported !== file && !sent.has(imported));
  for (const each of [file, ...wanted]) sent.add(each);
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto: [file, ...wanted].map(index.encode) } };
}

function failure(code: Code, message: string): Answer {
  return { case: 'errorResponse', value: { errorCode: code, errorMessage: message } };
}
