import type { Environment } from '@harrier/shared/gen/module';
import { Command } from 'commander';
import { addEnvironmentOptions, type EnvironmentFlags, environmentOf } from '../execution/environment-options.ts';
import { addRequestOptions, createRequest, type RequestFlags, readText } from '../execution/request-options.ts';
import { runRequest } from '../execution/run-request.ts';
import { CliError } from '../failure.ts';

type CommandTarget = { case: 'command'; value: { argv: string[]; environment?: Environment } };
type CodeTarget = { case: 'code'; value: { source: string; handler: string; environment?: Environment } };

interface Flags extends RequestFlags, EnvironmentFlags {
  code?: string;
  handler?: string;
  command?: true;
}

export function createExecCommand(): Command {
  const command = new Command('exec')
    .description('Run a file, a piece of Python or a command without registering it.')
    .usage('[options] FILE.py | -c CODE | --command -- PROGRAM [ARGUMENT...]')
    .argument('[file...]', 'Python source with a function `handler(input)`; - for standard input')
    .option('-c, --code <source>', 'Python source')
    .option('--handler <name>', 'function to call (default handler)')
    .option('--command', 'run a program of the sandbox; what it prints is shown as it comes')
    .action(async (words: string[], flags: Flags) => {
      const environment = await environmentOf(flags);
      const target = flags.command === true ? commandTarget(words, flags) : await codeTarget(words, flags);
      if (environment !== undefined) target.value.environment = environment;
      await runRequest(await createRequest(target, '', flags), flags);
    });
  return addRequestOptions(addEnvironmentOptions(command));
}

function commandTarget(argv: string[], flags: Flags): CommandTarget {
  if (argv.length === 0) throw new CliError('no command is given: harrier exec --command -- PROGRAM [ARGUMENT...]');
  if (flags.code !== undefined || flags.handler !== undefined) {
    throw new CliError('--command goes with neither --code nor --handler');
  }
  return { case: 'command', value: { argv } };
}

async function codeTarget(words: string[], flags: Flags): Promise<CodeTarget> {
  const [file, ...more] = words;
  if (more.length > 0) {
    throw new CliError(`one file is enough, not also "${more.join(' ')}"; a command needs --command before --`);
  }
  if ((file === undefined) === (flags.code === undefined)) throw new CliError('give either FILE.py or -c CODE');
  if (file === '-' && flags.input === '-') throw new CliError('code and input cannot both come from standard input');
  const source = flags.code ?? (await readText(file ?? ''));
  return { case: 'code', value: { source, handler: flags.handler ?? '' } };
}
