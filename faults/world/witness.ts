import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Mark } from '../evidence.ts';

/** Name of the pipe in a directory that code sees. */
const PIPE = 'witness';

/**
 * Writes down what code says of itself, past everything of Harrier. Code in a sandbox sees its interpreter's directory
 * read-only; a named pipe there can be written to all the same. What was written is in the kernel until it is read here,
 * whoever is killed meanwhile, and then in a file for each execution.
 *
 * The interpreter is a copy of the host's, so that each process that runs it is known by it as one of this machine's.
 */
export class Witness {
  /** Interpreter for the agents. */
  readonly python: string;
  /** The pipe as code sees it that runs with the interpreter. */
  readonly pipe: string;
  readonly #directory: string;
  readonly #files: string;
  readonly #sockets: Socket[] = [];

  /** @param files directory for the files of evidence */
  constructor(files: string) {
    this.#files = files;
    this.#directory = witnessDirectory();
    this.python = join(this.#directory, 'python3');
    const [found] = ['/usr/bin/python3', '/usr/local/bin/python3'].filter(existsSync);
    if (found === undefined) throw new Error('there is no /usr/bin/python3; install with: apt-get install python3');
    copyFileSync(realpathSync(found), this.python);
    chmodSync(this.python, 0o755);
    this.pipe = this.#listen(this.#directory);
  }

  /** A pipe in a directory that code sees as another one. @returns its path there */
  listenIn(directory: string, seenAs: string): string {
    this.#listen(directory);
    return join(seenAs, PIPE);
  }

  /** What an execution has written so far, in order. */
  marksOf(key: string): Mark[] {
    const file = join(this.#files, key);
    if (!existsSync(file)) return [];
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => {
        const [attempt, executionId = '', nonce = '', event, microseconds] = line.split(' ');
        return {
          attempt: Number(attempt),
          executionId: executionId === '-' ? undefined : executionId,
          nonce,
          event: event as Mark['event'],
          timeMs: Number(microseconds) / 1000,
        };
      });
  }

  /** The keys of executions that have written something, and begin with this. */
  keysWith(prefix: string): string[] {
    return readdirSync(this.#files).filter((name) => name.startsWith(prefix));
  }

  /** Now, on the clock of the marks. */
  static nowMs(): number {
    return Number(process.hrtime.bigint() / 1000n) / 1000;
  }

  /** Whether a process runs the interpreter, whatever it calls itself. */
  isOwn(pid: number): boolean {
    try {
      const [program, own] = [statSync(`/proc/${pid}/exe`), statSync(this.python)];
      return program.ino === own.ino && program.dev === own.dev;
    } catch {
      return false;
    }
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #listen(directory: string): string {
    const path = join(directory, PIPE);
    execFileSync('mkfifo', [path]);
    chmodSync(path, 0o666);
    // Open for writing too: it then never ends, and nobody waits for a reader.
    const socket = new Socket({ fd: openSync(path, constants.O_RDWR | constants.O_NONBLOCK), writable: false });
    let left = '';
    socket.setEncoding('latin1').on('data', (text: string) => {
      const lines = (left + text).split('\n');
      left = lines.pop() ?? '';
      for (const line of lines) {
        const end = line.indexOf(' ');
        appendFileSync(join(this.#files, line.slice(0, end)), `${line.slice(end + 1)}\n`);
      }
    });
    this.#sockets.push(socket);
    return path;
  }
}

/** Not below /tmp, which every call has for itself, and where the sandbox's user may go. */
function witnessDirectory(): string {
  const parent = process.getuid?.() === 0 ? '/run' : join(homedir(), '.cache', 'harrier');
  const directory = join(parent, `harrier-faults-${process.pid}`);
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  return directory;
}
