import type { Command } from 'commander';
import { type CommandWords, collectWords } from './words.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** A script that completes commands and flags, and files where neither fits. It starts no process at a key stroke. */
export function completionScript(shell: Shell, program: Command): string {
  return { bash, zsh, fish }[shell](collectWords(program));
}

function bash(commands: readonly CommandWords[]): string {
  return `# bash completion of harrier: source <(harrier completion bash)
_harrier() {
${findPlace(commands, { first: '1', cursor: 'COMP_CWORD', word: `\${COMP_WORDS[index]}` })}
  local candidates=""
  case "$place" in
${commands.map(({ path, words }) => `    "${path}") candidates="${words.map(({ word }) => word).join(' ')}" ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$candidates" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _harrier harrier
`;
}

function zsh(commands: readonly CommandWords[]): string {
  const describe = ({ word, description }: { word: string; description: string }): string =>
    `'${quote(word)}:${quote(description.replaceAll(':', '\\:'))}'`;
  return `#compdef harrier
# zsh completion of harrier: source <(harrier completion zsh)
_harrier() {
${findPlace(commands, { first: '2', cursor: 'CURRENT', word: `\${words[index]}` })}
  local -a candidates
  case "$place" in
${commands.map(({ path, words }) => `    "${path}") candidates=(${words.map(describe).join(' ')}) ;;`).join('\n')}
  esac
  _describe harrier candidates || _files
}
compdef _harrier harrier
`;
}

function fish(commands: readonly CommandWords[]): string {
  const lines = commands.flatMap(({ path, words }) =>
    words.map(({ word, description }) => {
      const flag = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`;
      return `complete -c harrier -n '__harrier_at ${path}' ${flag} -d '${quoteFish(description)}'`;
    }),
  );
  return `# fish completion of harrier: harrier completion fish | source
function __harrier_at
    set -l place
    for word in (commandline -opc)[2..]
        if contains -- (string join ' ' $place $word) ${commands
          .filter(({ path }) => path !== '')
          .map(({ path }) => `'${path}'`)
          .join(' ')}
            set -a place $word
        end
    end
    test "$place" = "$argv"
end
${lines.join('\n')}
`;
}

/** Shell code that sets `place` to the longest known path among the words before the cursor. */
function findPlace(
  commands: readonly CommandWords[],
  { first, cursor, word }: Record<'first' | 'cursor' | 'word', string>,
): string {
  const paths = commands
    .filter(({ path }) => path !== '')
    .map(({ path }) => `      "${path.includes(' ') ? path : ` ${path}`}") place="${path}" ;;`);
  return `  local place="" index
  for ((index = ${first}; index < ${cursor}; index++)); do
    case "$place ${word}" in
${paths.join('\n')}
    esac
  done`;
}

function quote(text: string): string {
  return text.replaceAll("'", "'\\''");
}

function quoteFish(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll("'", "\\'");
}
