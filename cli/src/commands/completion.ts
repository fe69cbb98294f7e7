import { Argument, Command } from 'commander';
import { completionScript, SHELLS, type Shell } from '../completion/scripts.ts';
import { write } from '../output/terminal.ts';

/** @param program the whole command line, known when the command runs */
export function createCompletionCommand(program: () => Command): Command {
  return new Command('completion')
    .description('Print a completion script, for example: source <(harrier completion bash)')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action(async (shell: Shell) => {
      await write(completionScript(shell, program()));
    });
}
