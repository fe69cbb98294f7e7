import { Command } from 'commander';
import { addRequestOptions, createRequest, type RequestFlags, readText } from '../execution/request-options.ts';
import { runRequest } from '../execution/run-request.ts';
import { CliError } from '../failure.ts';

interface Flags extends RequestFlags {
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
      const target = flags.command === true ? commandTarget(words, flags) : await codeTarget(words, flags);
      await runRequest(await createRequest(target, '', flags), flags);
    });
  return addRequestOptions(command);
}

function commandTarget(argv: string[], flags: Flags) {
  if (argv.length === 0) throw new CliError('no command is given: harrier exec --command -- PROGRAM [ARGUMENT...]');
  if (flags.code !== undefined || flags.handler !== undefined) {
    throw new CliError('--command goes with neither --code nor --handler');
  }
  return { case: 'command' as const, value: { argv } };
}

async function codeTarget(words: string[], flags: Flags) {
  const [file, ...more] = words;
  if (more.length > 0) {
    throw new CliError(`one file is enough, not also "${more.join(' ')}"; a command needs --command before --`);
  }
  if ((file === undefined) === (flags.code === undefined)) throw new CliError('give either FILE.py or -c CODE');
  if (file === '-' && flags.input === '-') throw new CliError('code and input cannot both come from standard input');
  const source = flags.code ?? (await readText(file ?? ''));
  return { case: 'code' as const, value: { source, handler: flags.handler ?? '' } };
}
