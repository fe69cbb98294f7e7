// Loaded into the processes of `harrier up` before their own code. Their standard input is a pipe that nobody writes to:
// it ends when `harrier up` is gone, however it went, and then they stop as on SIGTERM.
process.stdin.on('end', () => process.kill(process.pid, 'SIGTERM'));
process.stdin.on('error', () => process.kill(process.pid, 'SIGTERM'));
process.stdin.resume();
(process.stdin as unknown as { unref?: () => void }).unref?.();
