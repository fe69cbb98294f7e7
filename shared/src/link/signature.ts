/** What an agent signs to prove that it holds its key: bound to this protocol, this challenge and this key. */
export function signedBytes(nonce: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from('harrier.link.v1\0'), nonce, publicKey]);
}
