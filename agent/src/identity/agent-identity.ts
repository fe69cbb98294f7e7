import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { HarrierError, messageOf } from '@harrier/shared';

const FILE_NAME = 'identity.json';
const FILE_VERSION = 1;

interface IdentityFile {
  version: number;
  /** Empty until the agent has joined. */
  agentId: string;
  /** Ed25519, PKCS #8 in PEM. */
  privateKey: string;
}

/**
 * Who the agent is: an Ed25519 key pair made on this host, and the id that the control plane gave for it. Kept in the data
 * directory, readable by the owner only. The key is on disk before it is first shown, so that a join that was interrupted
 * is repeated with the same key.
 */
export class AgentIdentity {
  readonly path: string;
  /** Raw Ed25519 public key, 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly #privateKey: KeyObject;
  #agentId: string;

  private constructor(path: string, privateKey: KeyObject, agentId: string) {
    this.path = path;
    this.#privateKey = privateKey;
    this.#agentId = agentId;
    this.publicKey = rawPublicKey(privateKey);
  }

  /**
   * Reads the identity of a data directory, or makes one when there is none.
   * @throws HarrierError failed_precondition, when the file is damaged or readable by others
   */
  static open(dataDir: string): AgentIdentity {
    const path = join(dataDir, FILE_NAME);
    const text = readIfPresent(path);
    if (text === undefined) {
      const identity = new AgentIdentity(path, generateKeyPairSync('ed25519').privateKey, '');
      identity.#save();
      return identity;
    }
    const mode = statSync(path).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new HarrierError(
        'failed_precondition',
        `the agent's identity ${path} can be read by others (mode 0${mode.toString(8)}); run: chmod 600 ${path}`,
      );
    }
    try {
      const file = parseFile(text);
      return new AgentIdentity(path, parsePrivateKey(file.privateKey), file.agentId);
    } catch (cause) {
      throw new HarrierError(
        'failed_precondition',
        `the agent's identity ${path} is damaged: ${messageOf(cause)}; restore it, or remove it and join again with a new token`,
        { cause },
      );
    }
  }

  /** Empty until the agent has joined. */
  get agentId(): string {
    return this.#agentId;
  }

  /** Ed25519 signature, 64 bytes. */
  sign(data: Uint8Array): Uint8Array {
    return sign(null, data, this.#privateKey);
  }

  /** Keeps the id that the control plane gave; on disk when this returns. */
  keepAgentId(agentId: string): void {
    if (agentId === this.#agentId) return;
    this.#agentId = agentId;
    this.#save();
  }

  #save(): void {
    const file: IdentityFile = {
      version: FILE_VERSION,
      agentId: this.#agentId,
      privateKey: this.#privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    };
    writeAtomically(this.path, `${JSON.stringify(file, undefined, 2)}\n`);
  }
}

function rawPublicKey(privateKey: KeyObject): Uint8Array {
  const { x } = createPublicKey(privateKey).export({ format: 'jwk' });
  return Buffer.from(x ?? '', 'base64url');
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new HarrierError('failed_precondition', `the agent's identity cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function parseFile(text: string): IdentityFile {
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null) throw new Error('it is not a JSON object');
  const { version, agentId, privateKey } = value as Partial<Record<keyof IdentityFile, unknown>>;
  if (version !== FILE_VERSION) throw new Error(`version ${String(version)} is not ${FILE_VERSION}`);
  if (typeof agentId !== 'string') throw new Error('agentId is missing');
  if (typeof privateKey !== 'string') throw new Error('privateKey is missing');
  return { version, agentId, privateKey };
}

/** The engine's own message quotes the text, and with it the key. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('it is not JSON');
  }
}

function parsePrivateKey(pem: string): KeyObject {
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== 'ed25519') throw new Error(`privateKey is ${key.asymmetricKeyType}, not ed25519`);
  return key;
}

/** A crash leaves the old content or the new, never a part. */
function writeAtomically(path: string, text: string): void {
  const temporary = `${path}.new`;
  const file = openSync(temporary, 'w', 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
}
