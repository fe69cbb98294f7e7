import { VERSION } from '@harrier/shared';
import { Command } from 'commander';
import { createAgentsCommand } from './commands/agents.ts';
import { createCompletionCommand } from './commands/completion.ts';
import { createExecCommand } from './commands/exec.ts';
import { createExecutionsCommand } from './commands/executions.ts';
import { createLogsCommand } from './commands/logs.ts';
import { createModulesCommand } from './commands/modules.ts';
import { createProcessCommands } from './commands/processes.ts';
import { createRunCommand } from './commands/run.ts';
import { createSchedulesCommand } from './commands/schedules.ts';
import { createUpCommand } from './commands/up.ts';
import { createWorkflowsCommand } from './commands/workflows.ts';

const EXIT_CODES = `
Exit codes follow the execution:
  0    it succeeded
  1    it failed; a command passes on its own code
  2    wrong usage, or the control plane refused the request
  3    the control plane could not be reached
  124  it timed out
  130  it was cancelled`;

/** The whole command line. */
export function createProgram(): Command {
  const program = new Command('harrier')
    .description('Run code on your own machines behind one API.')
    .version(VERSION)
    .enablePositionalOptions()
    .addHelpText('after', EXIT_CODES);
  for (const command of [
    createUpCommand(),
    ...createProcessCommands(),
    createRunCommand(),
    createExecCommand(),
    createLogsCommand(),
    createExecutionsCommand(),
    createModulesCommand(),
    createWorkflowsCommand(),
    createSchedulesCommand(),
    createAgentsCommand(),
    createCompletionCommand(() => program),
  ]) {
    program.addCommand(command);
  }
  throwInsteadOfExit(program);
  return program;
}

/** `main` sets the exit code, once what was written has been read. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) throwInsteadOfExit(child);
}
