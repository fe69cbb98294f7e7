import type { LabelRequirement, LabelSelector } from '@harrier/shared';
import type { PendingQuery, Row } from 'postgres';
import type { Sql } from '../sql.ts';

/** What of an SQL statement is. */
type Fragment = PendingQuery<Row[]>;

/** The same as `matchesLabels`, of the column `labels` (jsonb, or null); to be put behind a WHERE. */
export function labelCondition(sql: Sql, selector: LabelSelector): Fragment {
  return selector.reduce<Fragment>((all, requirement) => sql`${all} AND ${requirementOf(sql, requirement)}`, sql``);
}

function requirementOf(sql: Sql, requirement: LabelRequirement): Fragment {
  const { key } = requirement;
  switch (requirement.operator) {
    case 'in': {
      // Containment is what an index finds.
      const [first, ...others] = requirement.values.map((value) => sql`labels @> ${sql.json({ [key]: value })}`);
      return sql`(${others.reduce<Fragment>((any, one) => sql`${any} OR ${one}`, first ?? sql`false`)})`;
    }
    case 'not-in':
      return sql`(labels->>${key} IS NULL OR labels->>${key} <> ALL(${requirement.values as string[]}))`;
    case 'exists':
      return sql`labels->>${key} IS NOT NULL`;
    case 'not-exists':
      return sql`labels->>${key} IS NULL`;
    case 'greater':
      return sql`${numberOf(sql, key)} > ${String(requirement.value)}::text::numeric`;
    case 'less':
      return sql`${numberOf(sql, key)} < ${String(requirement.value)}::text::numeric`;
  }
}

/** Null where the label is no whole number. */
function numberOf(sql: Sql, key: string): Fragment {
  return sql`CASE WHEN labels->>${key} ~ '^-?[0-9]+$' THEN (labels->>${key})::numeric END`;
}
