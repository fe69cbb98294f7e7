/** A WebSocket close frame holds at most 123 bytes of reason (RFC 6455, section 5.5). */
const MAX_REASON_BYTES = 123;

/** As much of a text as fits into a close frame, cut between characters. */
export function closeReason(text: string): string {
  const bytes = Buffer.from(text).subarray(0, MAX_REASON_BYTES);
  // A decoder in the middle of a stream keeps an incomplete character back.
  return new TextDecoder().decode(bytes, { stream: true });
}
