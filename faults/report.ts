import type { Verdict } from './auditor.ts';
import { OFFENCES, type Offence } from './offences.ts';

/** All rounds of one fault together. */
export interface FaultSummary {
  fault: string;
  /** Of its rounds those in which there was something to hit. */
  injections: number;
  executions: number;
  runs: number;
  firings: number;
  offences: Record<Offence, number>;
  duplicateStarts: number;
  readopted: number;
  rerun: number;
  overlapBytes: number;
  /** Nearest-rank percentiles over the injections; undefined: there was none, or it never recovered. */
  recoveryP50Ms: number | undefined;
  recoveryP99Ms: number | undefined;
}

export function summarize(verdicts: readonly Verdict[]): FaultSummary[] {
  const byFault = Map.groupBy(verdicts, ({ fault }) => fault);
  return [...byFault].sort(([a], [b]) => a.localeCompare(b)).map(([fault, rounds]) => summary(fault, rounds));
}

function summary(fault: string, rounds: readonly Verdict[]): FaultSummary {
  const sum = (count: (verdict: Verdict) => number) => rounds.reduce((total, round) => total + count(round), 0);
  const offences = Object.fromEntries(
    OFFENCES.map((offence) => [
      offence,
      sum(({ findings }) =>
        findings.reduce((total, finding) => total + (finding.offence === offence ? finding.count : 0), 0),
      ),
    ]),
  ) as Record<Offence, number>;
  const struck = rounds.filter(({ hasStruck }) => hasStruck);
  const recoveries = struck.flatMap(({ recoveryMs }) => recoveryMs ?? []).sort((a, b) => a - b);
  return {
    fault,
    injections: struck.length,
    executions: sum(({ executions }) => executions),
    runs: sum(({ runs }) => runs),
    firings: sum(({ firings }) => firings),
    offences,
    duplicateStarts: sum(({ duplicateStarts }) => duplicateStarts),
    readopted: sum(({ readopted }) => readopted),
    rerun: sum(({ rerun }) => rerun),
    overlapBytes: sum(({ overlapBytes }) => overlapBytes),
    recoveryP50Ms: percentile(recoveries, 0.5),
    recoveryP99Ms: percentile(recoveries, 0.99),
  };
}

/** Faults that never had anything to hit: of them the table tells nothing, however clean it is. */
export function neverStruck(summaries: readonly FaultSummary[]): string[] {
  return summaries.filter(({ injections }) => injections === 0).map(({ fault }) => fault);
}

/** Whether all that must be zero is. */
export function isClean(summaries: readonly FaultSummary[]): boolean {
  return summaries.every(({ offences }) => OFFENCES.every((offence) => offences[offence] === 0));
}

const COLUMNS: readonly [string, (summary: FaultSummary) => string | number][] = [
  ['fault', ({ fault }) => fault],
  ['injections', ({ injections }) => injections],
  ['executions', ({ executions }) => executions],
  ['runs', ({ runs }) => runs],
  ['firings', ({ firings }) => firings],
  ...OFFENCES.map((offence): [string, (summary: FaultSummary) => number] => [
    offence,
    ({ offences }) => offences[offence],
  ]),
  ['duplicate starts', ({ duplicateStarts }) => duplicateStarts],
  ['re-adopted', ({ readopted }) => readopted],
  ['re-run', ({ rerun }) => rerun],
  ['log bytes stored twice', ({ overlapBytes }) => overlapBytes],
  ['recovery p50', ({ recoveryP50Ms }) => seconds(recoveryP50Ms)],
  ['recovery p99', ({ recoveryP99Ms }) => seconds(recoveryP99Ms)],
];

/** A table in Markdown, which also reads well as it is. */
export function renderTable(summaries: readonly FaultSummary[]): string {
  const rows = [COLUMNS.map(([name]) => name), ...summaries.map((row) => COLUMNS.map(([, cell]) => String(cell(row))))];
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(' | ')} |`;
  const [head = [], ...body] = rows;
  const rule = `|${widths.map((width, i) => (i === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return `${[line(head), rule, ...body.map(line)].join('\n')}\n`;
}

function percentile(sorted: readonly number[], ratio: number): number | undefined {
  return sorted[Math.max(0, Math.ceil(sorted.length * ratio) - 1)];
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? 'never' : `${(ms / 1000).toFixed(1)} s`;
}
