import type { Command } from 'commander';

/** What can follow a command: subcommands and flags, each with its description. */
export interface CommandWords {
  /** Words before it, without `harrier`: `executions ls`; empty for the program itself. */
  path: string;
  words: { word: string; description: string }[];
}

/** The words of a command and of everything below it. */
export function collectWords(command: Command, path = ''): CommandWords[] {
  const help = command.createHelp();
  const commands = help.visibleCommands(command).filter((child) => child.name() !== 'help');
  const words = [
    ...commands.map((child) => ({ word: child.name(), description: child.description() })),
    ...help
      .visibleOptions(command)
      .flatMap(({ long, description }) => (long === undefined || long === null ? [] : [{ word: long, description }])),
  ];
  return [{ path, words }, ...commands.flatMap((child) => collectWords(child, `${path} ${child.name()}`.trim()))];
}
