/** The name of a value of a protobuf enum as a label: in small letters. */
export function enumName(values: Readonly<Record<string, number | string>>, value: number): string {
  return (Object.entries(values).find(([, number]) => number === value)?.[0] ?? String(value)).toLowerCase();
}
