import { join, resolve } from 'node:path';

/** What the command reads of its environment; flags stand above it. */
export interface Environment {
  serverUrl: string;
  /** Undefined: the file decides. */
  apiKey: string | undefined;
  dataDirectory: string;
  allowUnsandboxed: boolean;
  /** The control plane would speak TLS. */
  tls: boolean;
  logLevel: string | undefined;
  searchPath: string;
  /** All of it, for the processes that this one starts or becomes. */
  variables: Record<string, string>;
}

const DEFAULT_SERVER_URL = 'http://127.0.0.1:8000';

/** The only reader of the environment. */
export function readEnvironment(environment: NodeJS.ProcessEnv = process.env): Environment {
  return {
    // Agents may be given several; all of them answer alike.
    serverUrl: environment.HARRIER_SERVER_URL?.split(',')[0]?.trim() || DEFAULT_SERVER_URL,
    apiKey: environment.HARRIER_API_KEY || undefined,
    dataDirectory: resolve(environment.HARRIER_DATA_DIR || '.harrier'),
    allowUnsandboxed: /^(1|true|yes|on)$/i.test(environment.HARRIER_ALLOW_UNSANDBOXED ?? ''),
    tls: Boolean(environment.HARRIER_TLS_CERT_FILE || environment.HARRIER_TLS_KEY_FILE),
    logLevel: environment.HARRIER_LOG_LEVEL || undefined,
    searchPath: environment.PATH || '/usr/local/bin:/usr/bin:/bin',
    variables: Object.fromEntries(
      Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined),
    ),
  };
}

/** Where a control plane writes the key of its owner. */
export function adminKeyPath(dataDirectory: string): string {
  return join(dataDirectory, 'admin.key');
}
