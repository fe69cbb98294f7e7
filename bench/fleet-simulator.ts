import { FleetIdentity, SimulatedAgent } from './simulated-agent.ts';

// node bench/fleet-simulator.ts URL FIRST COUNT: links agents, says so in one line, and beats until it is ended.

/** Handshakes at once. */
const CONCURRENCY = 16;

const [url = '', first = '0', count = '0'] = process.argv.slice(2);
const numbers = Array.from({ length: Number(count) }, (_, n) => Number(first) + n);
await Promise.all(
  Array.from({ length: CONCURRENCY }, async () => {
    for (let n = numbers.shift(); n !== undefined; n = numbers.shift()) {
      const agent = new SimulatedAgent(url, new FleetIdentity(n));
      await agent.linked;
      agent.startBeats((code, reason) => {
        process.stderr.write(`a link was closed: ${code} ${reason}\n`);
        process.exit(1);
      });
    }
  }),
);
process.stdout.write('linked\n');
