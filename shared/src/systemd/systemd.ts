import { execFile } from 'node:child_process';
import { messageOf } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { SystemdSettings } from './settings.ts';

/**
 * Part of systemd. Node.js has no datagram sockets of the unix domain, and the libraries that bring them are compiled on the host;
 * a start of this program takes 3 ms, three times in a watchdog's interval. It waits until systemd has taken the message, so the
 * unit needs `NotifyAccess=all`.
 */
const COMMAND = 'systemd-notify';
/** A service manager that takes nothing must not gather processes. */
const COMMAND_TIMEOUT_MS = 5_000;
/** Two messages may be late before systemd thinks that the service hangs. */
const BEATS_PER_WATCHDOG = 3;

/** Tells systemd how this service fares, when it was started by it; else nothing happens. */
export class Systemd {
  readonly #settings: SystemdSettings | undefined;
  readonly #logger: Logger;
  readonly #command: string;
  /** One at a time, in order. */
  #sending: Promise<void> = Promise.resolve();
  #status = '';
  #failed = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param command stands in for `systemd-notify` in tests */
  constructor(settings: SystemdSettings | undefined, logger: Logger, command: string = COMMAND) {
    this.#settings = settings;
    this.#logger = logger;
    this.#command = command;
  }

  /** The start is over: what waits for this service may go on. */
  ready(status: string): void {
    this.#status = status;
    this.#send('READY=1', `STATUS=${line(status)}`);
  }

  /** One line for `systemctl status`. Told only when it differs from the last one. */
  status(status: string): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#send(`STATUS=${line(status)}`);
  }

  stopping(): void {
    this.close();
    this.#send('STOPPING=1', 'STATUS=Stopping');
  }

  /**
   * Keeps the watchdog quiet from now on, as long as the event loop turns and nothing is wrong. What is wrong makes systemd restart
   * the service at once.
   * @param wrong why the service cannot go on; undefined while it can
   */
  watch(wrong: () => string | undefined): void {
    const watchdogMs = this.#settings?.watchdogMs;
    if (watchdogMs === undefined) return;
    this.#timer = setInterval(() => {
      const reason = wrong();
      if (reason === undefined) {
        this.#send('WATCHDOG=1');
        return;
      }
      this.#logger.fatal({ reason }, 'asking systemd for a restart');
      this.#send('WATCHDOG=trigger', `STATUS=${line(reason)}`);
    }, watchdogMs / BEATS_PER_WATCHDOG);
    this.#timer.unref();
  }

  /** Resolves when what was said has been taken. */
  get told(): Promise<void> {
    return this.#sending;
  }

  /** Says nothing more by itself. */
  close(): void {
    clearInterval(this.#timer);
  }

  #send(...assignments: string[]): void {
    const { socket } = this.#settings ?? {};
    if (socket === undefined) return;
    this.#sending = this.#sending.then(() => this.#run(socket, assignments));
  }

  #run(socket: string, assignments: string[]): Promise<void> {
    const env = { NOTIFY_SOCKET: socket, PATH: '/usr/local/bin:/usr/bin:/bin' };
    return new Promise((resolve) => {
      execFile(this.#command, assignments, { env, timeout: COMMAND_TIMEOUT_MS, killSignal: 'SIGKILL' }, (error) => {
        if (error !== null && !this.#failed) {
          const reason = messageOf(error).split('\n', 1)[0];
          this.#logger.error({ reason }, 'systemd cannot be told anything; is systemd-notify there?');
        }
        this.#failed = error !== null;
        resolve();
      });
    });
  }
}

/** A message is made of lines. */
function line(text: string): string {
  return text.replaceAll(/\s+/g, ' ');
}
