/** What systemd says to a service of `Type=notify` in its variables (sd_notify(3), sd_watchdog_enabled(3)). */
export interface SystemdSettings {
  /** Path of its datagram socket, or `@` and an abstract name. */
  socket: string;
  /** A service that has not been heard of for so long is killed; undefined: it is not watched. */
  watchdogMs: number | undefined;
}

/**
 * Reads the variables and takes them away, so that no process started from here speaks for this one.
 * @returns undefined where systemd waits for nothing
 */
export function takeSystemdSettings(
  environment: Record<string, string | undefined>,
  pid: number = process.pid,
): SystemdSettings | undefined {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdogUs, WATCHDOG_PID: watched } = environment;
  delete environment.NOTIFY_SOCKET;
  delete environment.WATCHDOG_USEC;
  delete environment.WATCHDOG_PID;
  if (socket === undefined || socket === '') return undefined;
  const isWatched = watched === undefined || watched === '' || watched === String(pid);
  const watchdogMs = isWatched ? Number(watchdogUs) / 1000 : 0;
  return { socket, watchdogMs: watchdogMs > 0 ? watchdogMs : undefined };
}
