import {
  type Attempt,
  type Execution,
  WaitingConstraint_Kind as Kind,
  type WaitingConstraint,
} from '@harrier/shared/gen/execution';
import { prettyJson } from '../output/json.ts';
import { formatFields, formatTable } from '../output/table.ts';
import { isTerminal, paint, printable } from '../output/terminal.ts';
import { describeError, formatMs, formatTime, nameIn, paintState } from './describe.ts';

/** Everything about an execution, for a person. */
export function describeExecution(execution: Execution): string {
  const { phases, usage, error, attempts, waitingConstraints } = execution;
  const fields = formatFields([
    ['id', execution.id],
    ['state', paintState(execution.state) + (execution.cancelRequested ? ' (cancel requested)' : '')],
    ['waits', execution.waitingReason],
    ['module', [execution.module, execution.version].filter(Boolean).join(' ')],
    ['task class', execution.taskClass],
    ['labels', pairs(execution.labels)],
    ['attempt', execution.attempt === 0 ? '' : String(execution.attempt)],
    ['agent', execution.agentId],
    ['GPUs', execution.gpuUuids.join(', ')],
    ['accepted', formatTime(execution.createTime)],
    ['started', formatTime(execution.startTime)],
    ['ended', formatTime(execution.endTime)],
    ['next attempt', formatTime(execution.nextAttemptTime)],
    ['took', execution.endTime === undefined ? '' : formatMs(execution.durationMs)],
    [
      'phases',
      phases === undefined
        ? ''
        : `queued ${formatMs(phases.queuedMs)}, prepare ${formatMs(phases.prepareMs)}, run ${formatMs(phases.runMs)}`,
    ],
    ['processor', usage === undefined ? '' : formatMs(usage.cpuMs)],
    ['memory', usage === undefined ? '' : formatBytes(usage.maxRssBytes)],
    ['stdout', describeStream(execution.stdoutBytes, execution.stdoutTruncated)],
    ['stderr', describeStream(execution.stderrBytes, execution.stderrTruncated)],
    ['exit code', execution.exitCode === undefined ? '' : String(execution.exitCode)],
    ['error', error === undefined ? '' : describeError(error)],
  ]);
  return [
    fields,
    section('input', execution.inputJson),
    section('output', outputText(execution)),
    waitingConstraints.length > 0 ? `\n${waitingTable(waitingConstraints)}` : '',
    attempts.length > 1 ? `\n${attemptTable(attempts)}` : '',
  ].join('');
}

function outputText({ output, outputJson }: Execution): string {
  return outputJson === '' && output !== undefined ? JSON.stringify(output) : outputJson;
}

function section(title: string, json: string): string {
  if (json === '') return '';
  return isTerminal() ? `\n${paint('dim', title)}\n${prettyJson(json)}\n` : `${title}\t${json.trim()}\n`;
}

function attemptTable(attempts: readonly Attempt[]): string {
  const rows = attempts.map(({ number, state, agentId, startTime, endTime, error }) => [
    String(number),
    paintState(state),
    agentId,
    formatTime(startTime),
    formatTime(endTime),
    error === undefined ? '' : (describeError(error).split('\n')[0] ?? ''),
  ]);
  return formatTable(['ATTEMPT', 'STATE', 'AGENT', 'STARTED', 'ENDED', 'ERROR'], rows);
}

/** What keeps it from each agent; an agent that can never take it as it is says so. */
function waitingTable(constraints: readonly WaitingConstraint[]): string {
  const rows = constraints.map(({ agentName, kind, message, permanent }) => [
    agentName || '-',
    nameIn(Kind, kind),
    printable(message),
    permanent ? 'never' : 'later',
  ]);
  return formatTable(['AGENT', 'CONSTRAINT', 'REASON', 'POSSIBLE'], rows);
}

function describeStream(bytes: bigint, truncated: boolean): string {
  return bytes === 0n ? '' : `${formatBytes(bytes)}${truncated ? ', cut at its limit' : ''}`;
}

/** `640 B`, `12.5 KiB`, `3.0 MiB`. */
export function formatBytes(bytes: bigint): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

function pairs(map: Readonly<Record<string, string>>): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ');
}
