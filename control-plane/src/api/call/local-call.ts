import type { DescMethod, DescService, Message } from '@bufbuild/protobuf';
import { createMethodImplSpec, type HandlerContext, type Interceptor, type MethodImpl } from '@connectrpc/connect';
import {
  createAsyncIterable,
  invokeUnaryImplementation,
  transformInvokeImplementation,
} from '@connectrpc/connect/protocol';

/** A service of the schema and the object that has its methods. */
export interface ImplementedService {
  service: DescService;
  implementation: object;
}

/** One method, called in the process through the interceptors that Connect's own handlers go through. */
export interface LocalCall {
  unary(request: Message, context: HandlerContext): Promise<Message>;
  stream(request: Message, context: HandlerContext): AsyncIterable<Message>;
}

/** Which of the four kinds of method it is the descriptor says. */
type UnknownImpl = (...args: unknown[]) => unknown;

/** Throws when the implementation of the service lacks the method. */
export function createLocalCall(method: DescMethod, implementation: object, interceptors: Interceptor[]): LocalCall {
  const implemented = (implementation as Record<string, UnknownImpl | undefined>)[method.localName];
  if (implemented === undefined) throw new Error(`${method.parent.typeName}.${method.name} is not implemented`);
  const spec = createMethodImplSpec(method, implemented.bind(implementation) as MethodImpl<DescMethod>);
  return {
    unary(request, context) {
      if (spec.kind !== 'unary') throw new Error(`${method.name} is not unary`);
      return invokeUnaryImplementation(spec, context, request, interceptors);
    },
    stream: (request, context) =>
      transformInvokeImplementation(spec, context, interceptors)(createAsyncIterable([request])),
  };
}
