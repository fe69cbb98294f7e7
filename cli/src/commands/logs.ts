import { setTimeout as wait } from 'node:timers/promises';
import { cappedExponentialMs } from '@harrier/shared';
import { LogChunkSchema, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { Command, Option } from 'commander';
import { isConnectionLoss } from '../connection/call-error.ts';
import { type Clients, withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { parseInteger } from '../execution/request-options.ts';
import { CliError, EXIT } from '../failure.ts';
import { formatMessage } from '../output/json.ts';
import { write, writeError } from '../output/terminal.ts';

interface Flags extends ConnectionFlags {
  follow?: true;
  stream?: 'stdout' | 'stderr';
  attempt?: number;
}

const STREAMS = { stdout: Stream.STDOUT, stderr: Stream.STDERR } as const;
const MAX_RECONNECTS = 10;
const RECONNECT_BACKOFF = { initialMs: 100, maxMs: 5_000, multiplier: 2 };

export function createLogsCommand(): Command {
  const command = new Command('logs')
    .description(
      'Print what an execution wrote, byte for byte: its output to standard output, its errors to standard error.',
    )
    .argument('<id>', 'id of the execution')
    .option('-f, --follow', 'wait for what is still to come')
    .addOption(new Option('--stream <name>', 'only this stream').choices(['stdout', 'stderr']))
    .option('--attempt <number>', 'attempt to read (default the last)', parseInteger)
    .action(async (id: string, flags: Flags) => {
      await withClients(flags, async ({ executions }) => await copyLog(executions, id, flags));
    });
  return addConnectionOptions(command);
}

/** Copies the log; over a new connection from where a lost one ended. */
async function copyLog(client: Clients['executions'], id: string, flags: Flags): Promise<void> {
  const stream = flags.stream === undefined ? Stream.STREAM_UNSPECIFIED : STREAMS[flags.stream];
  const request = {
    id,
    stream,
    follow: flags.follow === true,
    attempt: flags.attempt ?? 0,
    stdoutOffset: 0n,
    stderrOffset: 0n,
  };
  for (let losses = 0; ; ) {
    try {
      for await (const { chunk } of client.readLogs(request)) {
        if (chunk === undefined) continue;
        losses = 0;
        request.attempt = chunk.attempt;
        const name = chunk.stream === Stream.STDERR ? 'stderrOffset' : 'stdoutOffset';
        if (chunk.offset !== request[name]) {
          const missing = `bytes ${request[name]} to ${chunk.offset} are missing`;
          throw new CliError(`the log of ${id} has a gap: ${missing}`, EXIT.failed);
        }
        request[name] += BigInt(chunk.data.length);
        if (flags.json === true) await write(formatMessage(LogChunkSchema, chunk));
        else await (chunk.stream === Stream.STDERR ? writeError : write)(chunk.data);
      }
      return;
    } catch (error) {
      if (!isConnectionLoss(error) || losses >= MAX_RECONNECTS || request.attempt === 0) throw error;
      await wait(cappedExponentialMs(losses, RECONNECT_BACKOFF));
      losses += 1;
    }
  }
}
