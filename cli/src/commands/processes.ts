import { Command } from 'commander';
import { readEnvironment } from '../config.ts';
import { becomeMain } from '../up/mains.ts';

/** `harrier server` and `harrier agent`: the processes themselves, with their own flags. */
export function createProcessCommands(): Command[] {
  return [
    createProcessCommand('server', 'Run a control plane (flags: harrier server --help).'),
    createProcessCommand('agent', 'Run an agent on this host (flags: harrier agent --help).'),
  ];
}

function createProcessCommand(name: 'server' | 'agent', description: string): Command {
  return new Command(name)
    .description(description)
    .helpOption(false)
    .allowUnknownOption()
    .passThroughOptions()
    .argument('[flags...]')
    .action(async (flags: string[]) => {
      process.exitCode = await becomeMain(name, flags, readEnvironment().variables);
    });
}
