/** Replace this file in an image of your own. */
export async function executeFunction(input) {
  return { echo: input };
}
