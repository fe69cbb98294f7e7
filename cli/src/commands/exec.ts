import type { Environment } from '@harrier/shared/gen/module';
import { Command, Option } from 'commander';
import { addEnvironmentOptions, type EnvironmentFlags, environmentOf } from '../execution/environment-options.ts';
import { LANGUAGES, languageOfFile } from '../execution/language.ts';
import { addRequestOptions, createRequest, type RequestFlags, readText } from '../execution/request-options.ts';
import { runRequest } from '../execution/run-request.ts';
import { CliError } from '../failure.ts';

type CommandTarget = { case: 'command'; value: { argv: string[]; environment?: Environment } };
type CodeTarget = {
  case: 'code';
  value: { source: string; language: string; handler: string; environment?: Environment };
};

interface Flags extends RequestFlags, EnvironmentFlags {
  code?: string;
  handler?: string;
  language?: string;
  command?: true;
}

export function createExecCommand(): Command {
  const command = new Command('exec')
    .description('Run a file, a piece of code or a command without registering it.')
    .usage('[options] FILE | -c CODE | --command -- PROGRAM [ARGUMENT...]')
    .argument('[file...]', 'source with a function `handler(input)`: FILE.py, FILE.js or FILE.go; - for standard input')
    .option('-c, --code <source>', 'source text')
    .addOption(new Option('--language <language>', 'default by the ending of FILE, else python').choices(LANGUAGES))
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
  const given = (['code', 'handler', 'language'] as const).filter((name) => flags[name] !== undefined);
  if (given.length > 0) throw new CliError(`--command does not go with --${given.join(', --')}`);
  return { case: 'command', value: { argv } };
}

async function codeTarget(words: string[], flags: Flags): Promise<CodeTarget> {
  const [file, ...more] = words;
  if (more.length > 0) {
    throw new CliError(`one file is enough, not also "${more.join(' ')}"; a command needs --command before --`);
  }
  if ((file === undefined) === (flags.code === undefined)) throw new CliError('give either FILE or -c CODE');
  if (file === '-' && flags.input === '-') throw new CliError('code and input cannot both come from standard input');
  const source = flags.code ?? (await readText(file ?? ''));
  const language = flags.language ?? languageOfFile(file ?? '');
  return { case: 'code', value: { source, language, handler: flags.handler ?? '' } };
}
