/** The same messages; what the stream throws is replaced by what `mapped` makes of it. */
export async function* mapStreamErrors<T>(
  messages: AsyncIterable<T>,
  mapped: (thrown: unknown) => Error,
): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw mapped(error);
  }
}
