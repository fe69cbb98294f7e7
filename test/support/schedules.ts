import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import {
  type Schedule,
  type ScheduleFiring,
  ScheduleSchema,
  ScheduleFiring_State as State,
} from '@harrier/shared/gen/schedule';
import type { Clients } from './clients.ts';
import { until } from './wait.ts';

let names = 0;

/** A schedule as a document, with a name of its own unless it has one. */
export function schedule(given: Record<string, JsonValue>): Schedule {
  return fromJson(ScheduleSchema, { name: `s${++names}`, ...given });
}

/** Makes a schedule. @returns its name */
export async function makeSchedule({ schedules }: Clients, given: Record<string, JsonValue>): Promise<string> {
  const made = await schedules.createSchedule({ schedule: schedule(given) });
  return made.schedule?.name ?? '';
}

/** All firings of a schedule, the earliest first. */
export async function firingsOf({ schedules }: Clients, name: string): Promise<ScheduleFiring[]> {
  const { firings } = await schedules.listScheduleFirings({ name, pageSize: 1000 });
  return firings.toReversed();
}

/** Waits until so many firings of a schedule are in a state. @returns all of its firings */
export async function untilFirings(
  clients: Clients,
  name: string,
  state: keyof typeof State,
  count: number,
): Promise<ScheduleFiring[]> {
  return await until(`${count} firings of ${name} to be ${state}`, async () => {
    const firings = await firingsOf(clients, name);
    return firings.filter((firing) => firing.state === State[state]).length >= count ? firings : undefined;
  });
}

export function timesOf(firings: readonly ScheduleFiring[]): number[] {
  return firings.map(({ time }) => (time === undefined ? Number.NaN : timestampDate(time).getTime()));
}

/** Names of their states. */
export function statesOf(firings: readonly ScheduleFiring[]): string[] {
  return firings.map(({ state }) => nameOf(state));
}

function nameOf(state: State): string {
  return Object.entries(State).find(([, value]) => value === state)?.[0] ?? '';
}
