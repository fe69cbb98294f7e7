import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { afterAll } from 'vitest';
import { readAll } from './http.ts';
import { until } from './wait.ts';

export interface ReceivedSpan {
  service: string;
  name: string;
  traceId: string;
  spanId: string;
  parentId: string;
  /** SpanKind of OTLP: 1 internal, 2 server, 5 consumer. */
  kind: number;
  startNs: bigint;
  endNs: bigint;
  attributes: Record<string, string | number>;
  /** Status code of OTLP: 2 is an error. */
  status: number;
}

/** Takes spans as a collector does: `POST /v1/traces` with an `ExportTraceServiceRequest` in protobuf. */
export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = [];
  readonly headers: Record<string, unknown>[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      readAll(request).then(
        (body) => {
          const isTraces = request.method === 'POST' && request.url === '/v1/traces';
          if (!isTraces || request.headers['content-type'] !== 'application/x-protobuf') {
            response.writeHead(400).end();
            return;
          }
          this.headers.push(request.headers);
          this.spans.push(...decodeSpans(body));
          // An empty ExportTraceServiceResponse.
          response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
        },
        () => response.destroy(),
      );
    });
  }

  /** It is gone after the test file. */
  static async start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver();
    await new Promise<void>((resolve) => receiver.#server.listen(0, '127.0.0.1', resolve));
    afterAll(async () => {
      receiver.#server.closeAllConnections();
      await new Promise((resolve) => receiver.#server.close(resolve));
      // The handle itself goes some turns later.
      await until('the socket to be closed', () => !process.getActiveResourcesInfo().includes('TCPServerWrap'));
    });
    return receiver;
  }

  /** Variables for processes that are to send their spans here, soon. */
  get variables(): Record<string, string> {
    const { port } = this.#server.address() as AddressInfo;
    return {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      OTEL_EXPORTER_OTLP_HEADERS: 'x-collector-key=k%201',
      OTEL_BSP_SCHEDULE_DELAY: '50',
    };
  }

  /** Waits for the span of a trace that has this name. */
  async span(traceId: string, name: string): Promise<ReceivedSpan> {
    const found = () => this.spans.find((span) => span.traceId === traceId && span.name === name);
    return await until(`the span ${name} of ${traceId}`, found, {
      seen: () => this.spans.map(({ traceId: trace, name: known }) => `${trace} ${known}`),
    });
  }
}

/** Fields of a message by number, those that repeat in order. https://github.com/open-telemetry/opentelemetry-proto */
type Fields = Map<number, (Uint8Array | bigint)[]>;

function fieldsOf(bytes: Uint8Array): Fields {
  const reader = new BinaryReader(bytes);
  const fields: Fields = new Map();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    const value =
      type === WireType.LengthDelimited
        ? reader.bytes()
        : type === WireType.Bit64
          ? BigInt(reader.fixed64())
          : type === WireType.Bit32
            ? BigInt(reader.fixed32())
            : BigInt(reader.int64());
    fields.set(number, [...(fields.get(number) ?? []), value]);
  }
  return fields;
}

function messages(fields: Fields, number: number): Fields[] {
  return (fields.get(number) ?? []).map((value) => fieldsOf(value as Uint8Array));
}

function bytesOf(fields: Fields, number: number): Buffer {
  return Buffer.from((fields.get(number)?.[0] as Uint8Array | undefined) ?? new Uint8Array());
}

function numberOf(fields: Fields | undefined, number: number): bigint {
  return (fields?.get(number)?.[0] as bigint | undefined) ?? 0n;
}

function attributesOf(fields: Fields, number: number): Record<string, string | number> {
  return Object.fromEntries(
    messages(fields, number).map((pair) => {
      const value = messages(pair, 2)[0] ?? new Map();
      const text = value.has(1) ? bytesOf(value, 1).toString() : Number(numberOf(value, 3));
      return [bytesOf(pair, 1).toString(), text];
    }),
  );
}

function decodeSpans(body: Uint8Array): ReceivedSpan[] {
  return messages(fieldsOf(body), 1).flatMap((resourceSpans) => {
    const resource = messages(resourceSpans, 1)[0] ?? new Map();
    const service = String(attributesOf(resource, 1)['service.name']);
    const spans = messages(resourceSpans, 2).flatMap((scopeSpans) => messages(scopeSpans, 2));
    return spans.map((span) => ({
      service,
      traceId: bytesOf(span, 1).toString('hex'),
      spanId: bytesOf(span, 2).toString('hex'),
      parentId: bytesOf(span, 4).toString('hex'),
      name: bytesOf(span, 5).toString(),
      kind: Number(numberOf(span, 6)),
      startNs: numberOf(span, 7),
      endNs: numberOf(span, 8),
      attributes: attributesOf(span, 9),
      status: Number(numberOf(messages(span, 15)[0], 3)),
    }));
  });
}
