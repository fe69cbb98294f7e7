import { WaitingConstraint_Kind as Kind } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { nearestObstacle } from './queue-obstacles.ts';

const of = (kind: Kind, permanent = false) => ({ kind, permanent });

test.each([
  ['no agent is linked', [], Kind.OFFLINE],
  ['most agents are full', [of(Kind.SLOTS), of(Kind.MEMORY), of(Kind.SLOTS)], Kind.SLOTS],
  [
    'one has a card that is in use, the others have none',
    [of(Kind.GPUS), ...Array(3).fill(of(Kind.GPUS, true))],
    Kind.GPUS,
  ],
  [
    'what ends goes before what stays',
    [of(Kind.LABELS, true), of(Kind.LABELS, true), of(Kind.DRAINING)],
    Kind.DRAINING,
  ],
  [
    'nobody could ever take it',
    [of(Kind.LABELS, true), of(Kind.ENVIRONMENT, true), of(Kind.LABELS, true)],
    Kind.LABELS,
  ],
])('where %s, that is the obstacle', (_, constraints, expected) => {
  expect(nearestObstacle(constraints)).toBe(expected);
});
