import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface TlsFiles {
  certFile: string;
  keyFile: string;
  cert: Buffer;
  remove(): Promise<void>;
}

/** A fresh self-signed certificate for `localhost` and 127.0.0.1. Needs the `openssl` command (Debian: `apt install openssl`). */
export async function createTlsFiles(): Promise<TlsFiles> {
  const directory = await mkdtemp(join(tmpdir(), 'harrier-tls-'));
  const certFile = join(directory, 'cert.pem');
  const keyFile = join(directory, 'key.pem');
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile];
  await promisify(execFile)('openssl', ['req', '-x509', '-days', '1', ...key, '-out', certFile, ...subject]);
  return { certFile, keyFile, cert: await readFile(certFile), remove: () => rm(directory, { recursive: true }) };
}
