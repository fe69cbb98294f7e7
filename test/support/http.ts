import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { DEADLINE_MS, within } from './wait.ts';

export interface HttpAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  bytes: Buffer;
  text: string;
  /** The body as JSON; undefined when it is none. */
  // biome-ignore lint/suspicious/noExplicitAny: what a server answers has the shape that the test expects.
  json: any;
}

export interface HttpRequest {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  signal?: AbortSignal;
}

/** Sends a request on a connection of its own, and answers as soon as the headers are there. */
export async function openHttp(url: string, options: HttpRequest = {}): Promise<IncomingMessage> {
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    const { method = 'GET', headers, body, signal } = options;
    const call = request(url, { method, agent: false, ...(headers && { headers }), ...(signal && { signal }) });
    call.once('error', reject);
    call.once('response', resolve);
    call.end(body);
  });
  return await within(`an answer of ${options.method ?? 'GET'} ${url}`, answer);
}

/** Sends a request and reads the whole answer. */
export async function http(url: string, options: HttpRequest = {}): Promise<HttpAnswer> {
  const response = await openHttp(url, options);
  const bytes = await within(`the body of ${url}`, readAll(response), DEADLINE_MS);
  const text = bytes.toString();
  return { status: response.statusCode ?? 0, headers: response.headers, bytes, text, json: parse(text) };
}

export async function readAll(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The events of a body of type text/event-stream, comments left out. */
export function parseEvents(text: string): { event: string; id: string; data: string }[] {
  return text
    .split('\n\n')
    .filter((block) => /^(event|data|id):/m.test(block))
    .map((block) => {
      const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, 'm').exec(block)?.[1] ?? '';
      return { event: field('event'), id: field('id'), data: field('data') };
    });
}
