import type { DescEnum } from '@bufbuild/protobuf';
import { ExecutionError_CodeSchema as CodeSchema } from '@harrier/shared/gen/error';
import { Execution_StateSchema as StateSchema } from '@harrier/shared/gen/execution';
import type { EventPosition, EventRow } from '../db/queries/events.ts';

/** An event as one line of JSON, without the line's end. Fields that an event does not have are left out. */
export function eventLine(event: EventRow): string {
  return JSON.stringify({
    position: positionText(event),
    time: event.time.toISOString(),
    type: event.type,
    tenant: event.tenant_id,
    execution: event.execution_id ?? undefined,
    attempt: event.attempt ?? undefined,
    agent: event.agent_id ?? undefined,
    state: event.state === null ? undefined : nameIn(StateSchema, event.state),
    error: event.error_code === null ? undefined : nameIn(CodeSchema, event.error_code),
    data: event.data ?? undefined,
  });
}

function nameIn(schema: DescEnum, number: number): string {
  return schema.value[number]?.name ?? String(number);
}

/** The position in a line that `eventLine` made; undefined when it is none. */
export function positionOfLine(line: string): EventPosition | undefined {
  try {
    const { position } = JSON.parse(line) as { position?: unknown };
    const [, xid, id] = /^(\d{1,20})-(\d{1,16})$/.exec(String(position)) ?? [];
    return xid === undefined || id === undefined ? undefined : { xid, id: Number(id) };
  } catch {
    return undefined;
  }
}

function positionText({ xid, id }: EventPosition): string {
  return `${xid}-${id}`;
}
