import { Code, ConnectError, type ConnectRouter, createConnectRouter, type ServiceImpl } from '@connectrpc/connect';
import { compressionBrotli, compressionGzip } from '@connectrpc/connect-node';
import type { Logger, Tracing } from '@harrier/shared';
import { AgentService } from '@harrier/shared/gen/agent';
import { ExecutionService } from '@harrier/shared/gen/execution';
import { Health } from '@harrier/shared/gen/grpc/health/v1/health';
import { ServerReflection } from '@harrier/shared/gen/grpc/reflection/v1/reflection';
import { ServerReflection as ServerReflectionV1Alpha } from '@harrier/shared/gen/grpc/reflection/v1alpha/reflection';
import { ModuleService } from '@harrier/shared/gen/module';
import { Access_Role } from '@harrier/shared/gen/options';
import { ScheduleService } from '@harrier/shared/gen/schedule';
import { WorkflowService } from '@harrier/shared/gen/workflow';
import { BodyBudget } from './body-budget.ts';
import type { CallOptions } from './call/call-options.ts';
import type { ImplementedService } from './call/local-call.ts';
import { createConnectAdapter } from './connect/connect-adapter.ts';
import { createUnaryHandler } from './connect/unary-handler.ts';
import { sendGrpcError } from './connect/unary-protocol.ts';
import { sendError } from './error-response.ts';
import { createHealth } from './grpc/health.ts';
import { createReflection } from './grpc/reflection.ts';
import { type HttpHandler, pathOf, type TryHandler } from './http-types.ts';
import { createAccessGate } from './interceptors/auth.ts';
import { createErrorMapping } from './interceptors/errors.ts';
import { methodNameOf } from './interceptors/method-name.ts';
import type { Authenticate } from './interceptors/principal.ts';
import { createRpcMetrics, type Observe } from './interceptors/rpc-metrics.ts';
import { createCallTracing } from './interceptors/tracing.ts';
import { createValidation } from './interceptors/validate.ts';
import { type ApiLimits, DEFAULT_API_LIMITS } from './limits.ts';
import { createReadiness, createReadyz, healthz, type Ready } from './probes/probes.ts';
import { breakOff } from './response-writer.ts';
import { createRestHandler } from './rest/rest-handler.ts';

export interface ApiServices {
  execution: ServiceImpl<typeof ExecutionService>;
  module: ServiceImpl<typeof ModuleService>;
  agent: ServiceImpl<typeof AgentService>;
  workflow: ServiceImpl<typeof WorkflowService>;
  schedule: ServiceImpl<typeof ScheduleService>;
}

export interface ApiHandlerOptions {
  services: ApiServices;
  authenticate: Authenticate;
  observe: Observe;
  /** Absent: nothing is traced. */
  tracing?: Tracing;
  /** Whether calls can be served now. */
  ready: Ready;
  logger: Logger;
  limits?: Partial<ApiLimits> | undefined;
  /** Aborted when the process begins to stop: not ready from then on, and the signal of every call is aborted with its reason. */
  shutdownSignal?: AbortSignal | undefined;
  /** The installer of agents. */
  install?: TryHandler | undefined;
  /** Paths that are neither an RPC, nor annotated in the schema, nor a probe; absent: 404. */
  fallback?: HttpHandler | undefined;
}

/**
 * Everything that is served over plain HTTP requests: gRPC, gRPC-Web and Connect, the REST paths of the schema, gRPC health
 * and reflection, `/healthz` and `/readyz`, and the installer of agents. Only health, `/healthz`, `/readyz` and the installer answer
 * without a credential.
 */
export function createApiHandler(options: ApiHandlerOptions): HttpHandler {
  const { services, logger, observe, tracing, shutdownSignal } = options;
  const limits = { ...DEFAULT_API_LIMITS, ...options.limits };
  const ready = createReadiness(options.ready, logger, shutdownSignal);
  const gate = createAccessGate({ authenticate: options.authenticate, observe, logger });
  const implemented = [
    { service: ExecutionService, implementation: services.execution },
    { service: ModuleService, implementation: services.module },
    { service: AgentService, implementation: services.agent },
    { service: WorkflowService, implementation: services.workflow },
    { service: ScheduleService, implementation: services.schedule },
  ] as const;
  const requests = implemented.flatMap(({ service }) => service.methods.map((method) => method.input));
  const interceptors = [
    ...(tracing?.enabled ? [createCallTracing(tracing)] : []),
    createRpcMetrics(observe),
    createErrorMapping(logger),
    createValidation(requests),
  ];
  const reflected = [...implemented.map(({ service }) => service), Health, ServerReflection, ServerReflectionV1Alpha];

  const router = createConnectRouter({
    readMaxBytes: limits.maxRequestBytes,
    maxTimeoutMs: limits.maxTimeoutMs,
    acceptCompression: [compressionGzip, compressionBrotli],
    // Compressed requests are taken. Responses are never compressed: gRPC clients announce gzip by default, and it would cost
    // the log stream most of its throughput on the networks that agents and callers share.
    compressMinBytes: 0xffffffff,
    // A misspelt field is an error, not a default.
    jsonOptions: { ignoreUnknownFields: false },
    interceptors,
    requestGate: gate,
    ...(shutdownSignal === undefined ? {} : { shutdownSignal }),
  });
  router.service(ExecutionService, services.execution);
  router.service(ModuleService, services.module);
  router.service(AgentService, services.agent);
  router.service(WorkflowService, services.workflow);
  router.service(ScheduleService, services.schedule);
  addHealth(router);
  addReflection(router);

  const bodies = new BodyBudget(limits.maxBodiesBytes);
  const callOptions = { interceptors, gate, observe, limits, bodies, logger, shutdownSignal };
  const serveUnary = createUnaryHandlers(implemented, callOptions);
  const serveRpc = createConnectAdapter(router.handlers, limits.maxRequestBytes, bodies, logger);
  const serveRest = createRestHandler(implemented, callOptions);
  const readyz = createReadyz(ready);
  const install = options.install ?? (() => false);
  const fallback = options.fallback ?? notFound;

  const dispatch: HttpHandler = (request, response) => {
    bodies.track(request, response);
    const path = pathOf(request);
    if (path === '/healthz') healthz(request, response);
    else if (path === '/readyz') readyz(request, response);
    else if (
      !serveUnary(request, response) &&
      !serveRpc(request, response) &&
      !serveRest(request, response) &&
      !install(request, response)
    ) {
      if (!refuseUnknownMethod(request, response)) fallback(request, response);
    }
  };
  return (request, response) => {
    try {
      dispatch(request, response);
    } catch (error) {
      logger.error({ err: error, path: pathOf(request) }, 'request could not be served');
      breakOff(response);
    }
  };

  function addHealth(to: ConnectRouter): void {
    const serviceNames = reflected.map((service) => service.typeName);
    to.service(Health, createHealth({ ready, serviceNames }), { requestGate: async () => {} });
  }

  function addReflection(to: ConnectRouter): void {
    const reflection = createReflection(reflected);
    // Not our schema, so no role is declared in it: any valid credential may look.
    const requestGate = createAccessGate({ ...options, requiredRole: Access_Role.VIEWER });
    to.service(ServerReflection, reflection, { requestGate });
    to.service(ServerReflectionV1Alpha, reflection, { requestGate });
  }
}

function createUnaryHandlers(implemented: readonly ImplementedService[], options: CallOptions): TryHandler {
  const byPath = new Map(
    implemented.flatMap(({ service, implementation }) =>
      service.methods
        .filter((method) => method.methodKind === 'unary')
        .map((method) => [`/${methodNameOf(method)}`, createUnaryHandler(method, implementation, options)]),
    ),
  );
  return (request, response) => byPath.get(pathOf(request))?.(request, response) ?? false;
}

/** Callers of gRPC take an answer that is not one of gRPC for a broken server, and come again. */
const refuseUnknownMethod: TryHandler = (request, response) => {
  const contentType = request.headers['content-type'] ?? '';
  if (request.method !== 'POST' || !/^application\/grpc(?:-web)?(?:[+;]|$)/.test(contentType)) return false;
  request.resume();
  sendGrpcError(response, contentType, new ConnectError(`there is no method ${pathOf(request)}`, Code.Unimplemented));
  return true;
};

const notFound: HttpHandler = (request, response) => {
  sendError(response, new ConnectError(`nothing is served at ${request.method} ${pathOf(request)}`, Code.NotFound));
};
