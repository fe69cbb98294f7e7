import { subscribe } from 'node:diagnostics_channel';
import type { ClientHttp2Stream } from 'node:http2';
import type { DescService } from '@bufbuild/protobuf';
import {
  type Client,
  Code,
  type ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from '@connectrpc/connect';
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from '@connectrpc/connect-node';
import { AgentService } from '@harrier/shared/gen/agent';
import { ExecutionService } from '@harrier/shared/gen/execution';
import { ModuleService } from '@harrier/shared/gen/module';
import { ScheduleService } from '@harrier/shared/gen/schedule';
import { WorkflowService } from '@harrier/shared/gen/workflow';
import { type HttpAnswer, type HttpRequest, http } from './http.ts';

/**
 * Whether a call was not begun and may be made again: the answer says so, or the server refused its stream, which was opened
 * just before the client read that the connection is being closed (RFC 9113, section 8.7). Clients of grpc-go, grpc-java
 * and grpcio make such a call again by themselves; Connect's knows the reset by its text only.
 */
export function mayBeMadeAgain({ code, message }: ConnectError): boolean {
  return code === Code.Unavailable || message.includes('NGHTTP2_REFUSED_STREAM');
}

// A server that stops closes a connection that is idle. Connect-node 2.2 destroys it with an error and, when the next call comes before
// that is told, does not listen for it any more: it would end the process. https://github.com/connectrpc/connect-es/issues/1768
subscribe('http2.client.stream.created', (message) => {
  const { session } = (message as { stream: ClientHttp2Stream }).stream;
  if (session !== undefined && !session.listeners('error').includes(ignore)) session.on('error', ignore);
});
function ignore(): void {}

export type Protocol = 'gRPC' | 'gRPC-Web' | 'Connect binary' | 'Connect JSON';

/** Everything that a caller with an API key has, over any protocol. gRPC unless said. */
export class Clients {
  readonly url: string;
  readonly apiKey: string;
  readonly executions: Client<typeof ExecutionService>;
  readonly modules: Client<typeof ModuleService>;
  readonly agents: Client<typeof AgentService>;
  readonly workflows: Client<typeof WorkflowService>;
  readonly schedules: Client<typeof ScheduleService>;
  readonly #transports = new Map<Protocol, Transport>();
  readonly #sessions: Http2SessionManager[] = [];

  constructor(url: string, apiKey: string) {
    this.url = url;
    this.apiKey = apiKey;
    this.executions = this.client(ExecutionService, 'gRPC');
    this.modules = this.client(ModuleService, 'gRPC');
    this.agents = this.client(AgentService, 'gRPC');
    this.workflows = this.client(WorkflowService, 'gRPC');
    this.schedules = this.client(ScheduleService, 'gRPC');
  }

  client<T extends DescService>(service: T, protocol: Protocol): Client<T> {
    let transport = this.#transports.get(protocol);
    if (transport === undefined) {
      transport = this.#transport(protocol);
      this.#transports.set(protocol, transport);
    }
    return createClient(service, transport);
  }

  /** A REST call. */
  async rest(method: string, path: string, body?: unknown, options: HttpRequest = {}): Promise<HttpAnswer> {
    return await this.#send(path, { ...options, method }, body);
  }

  /** A Connect call as curl makes it: `harrier.v1.ExecutionService/Execute` and JSON. */
  async connectJson(method: string, body: unknown, options: HttpRequest = {}): Promise<HttpAnswer> {
    return await this.#send(`/harrier.v1.${method}`, { ...options, method: 'POST' }, body);
  }

  headers(): Record<string, string> {
    return { authorization: `Bearer ${this.apiKey}` };
  }

  close(): void {
    for (const session of this.#sessions) session.abort();
  }

  async #send(path: string, options: HttpRequest, body: unknown): Promise<HttpAnswer> {
    const isText = typeof body === 'string' || body instanceof Uint8Array;
    return await http(this.url + path, {
      ...options,
      headers: { ...this.headers(), 'content-type': 'application/json', ...options.headers },
      ...(body === undefined ? {} : { body: isText ? body : JSON.stringify(body) }),
    });
  }

  #transport(protocol: Protocol): Transport {
    const sessionManager = new Http2SessionManager(this.url);
    this.#sessions.push(sessionManager);
    const authorize: Interceptor = (next) => (request) => {
      if (!request.header.has('authorization')) request.header.set('authorization', `Bearer ${this.apiKey}`);
      return next(request);
    };
    const options = { baseUrl: this.url, interceptors: [authorize], sessionManager };
    switch (protocol) {
      case 'gRPC':
        return createGrpcTransport(options);
      case 'gRPC-Web':
        return createGrpcWebTransport({ ...options, httpVersion: '2' });
      case 'Connect binary':
        return createConnectTransport({ ...options, httpVersion: '2', useBinaryFormat: true });
      case 'Connect JSON':
        return createConnectTransport({ ...options, httpVersion: '2', useBinaryFormat: false });
    }
  }
}
