import { fixture } from '../support/requests.ts';

/** One behaviour as the source of a handler, in each language. */
interface Handler {
  python: string;
  nodejs: string;
}

const FORGED = '{"forged":true}';

/** What the contract is tried with: the same in each language. */
export const HANDLERS = {
  echo: {
    python: 'def handler(input):\n    return {"got": input}\n',
    nodejs: 'export const handler = (input) => ({ got: input });',
  },
  context: {
    python: `def handler(input, context):
    return {"id": context.execution_id, "attempt": context.attempt, "late": context.deadline > 0}
`,
    nodejs: `export function handler(input, { executionId, attempt, deadline }) {
  return { id: executionId, attempt, late: deadline > new Date() };
}`,
  },
  async: {
    python: `import asyncio
async def handler(input):
    a, b = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
    return {"sum": a + b}
`,
    nodejs: `export async function handler() {
  const [a, b] = await Promise.all([1, 2].map((n) => new Promise((resolve) => setTimeout(resolve, 0, n))));
  return { sum: a + b };
}`,
  },
  variables: {
    python: 'import os\ndef handler(input):\n    return {"greeting": os.environ["GREETING"]}\n',
    nodejs: 'export const handler = () => ({ greeting: process.env.GREETING });',
  },
  progress: {
    python: `def handler(input, context):
    context.progress(40, "nearly half")
    print("told", flush=True)
    import time
    time.sleep(600)
`,
    nodejs: `export function handler(input, context) {
  context.progress(40, 'nearly half');
  console.log('told');
  return new Promise(() => setInterval(() => {}, 60_000));
}`,
  },
  leftovers: {
    python: `import builtins, os, sys
def handler(input):
    found = {
        "global": hasattr(builtins, "left"),
        "files": [path for path in ("/tmp/left", "/dev/shm/left", "/var/tmp/left") if os.path.exists(path)],
        "others": len([pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) > 1]),
    }
    builtins.left = sys.modules["left"] = os
    for directory in ("/tmp", "/dev/shm", "/var/tmp"):
        try:
            open(directory + "/left", "w").close()
        except OSError:
            pass
    os.path.join = None
    return found
`,
    nodejs: `import { existsSync, readdirSync, writeFileSync } from 'node:fs';
export function handler() {
  const paths = ['/tmp/left', '/dev/shm/left', '/var/tmp/left'];
  const found = {
    global: 'left' in globalThis,
    files: paths.filter((path) => existsSync(path)),
    others: readdirSync('/proc').filter((name) => /^\\d+$/.test(name) && name !== '1').length,
  };
  globalThis.left = true;
  for (const path of paths) {
    try {
      writeFileSync(path, 'x');
    } catch {}
  }
  return found;
}`,
  },
  writer: { python: fixture('writer.py'), nodejs: fixture('writer.js') },
  lines: {
    python: 'def handler(input):\n    for _ in range(100): print("x" * 1000)\n    return {}\n',
    nodejs: 'export function handler() { for (let i = 0; i < 100; i++) console.log("x".repeat(1000)); return {}; }',
  },
  forger: {
    python: `import json, struct, sys
def handler(input):
    head, body = b'{"type":"result"}', b'${FORGED}'
    sys.stdout.buffer.write(struct.pack("!II", len(head), len(body)) + head + body)
    sys.stdout.flush()
    print(json.dumps({"ok": True, "output": {"forged": True}}), flush=True)
    return {"forged": False}
`,
    nodejs: `export function handler() {
  const head = Buffer.from('{"type":"result"}');
  const prefix = Buffer.from([0, 0, 0, head.length, 0, 0, 0, ${FORGED.length}]);
  process.stdout.write(Buffer.concat([prefix, head, Buffer.from('${FORGED}')]));
  console.log(JSON.stringify({ ok: true, output: { forged: true } }));
  return { forged: false };
}`,
  },
  sleeper: { python: fixture('sleeper.py'), nodejs: fixture('sleeper.js') },
  hungry: {
    python: 'def handler(input):\n    return {"n": len(bytearray(b"x") * (400 * 1024 * 1024))}\n',
    nodejs: 'export const handler = () => ({ n: Buffer.alloc(400 * 1024 * 1024, 1).length });',
  },
  outside: {
    python: `import os, socket, sys
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"

def handler(input):
    here = os.path.dirname(os.__file__)
    return {
        "host": tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=2)),
        "name": tried(lambda: socket.getaddrinfo("example.org", 80)),
        "interpreter": tried(lambda: open(os.path.join(here, "planted.pth"), "w")),
        "environment": tried(lambda: open(os.path.join(sys.prefix, "planted"), "w")),
    }
`,
    nodejs: `import { createConnection } from 'node:net';
import { lookup } from 'node:dns/promises';
import { writeFileSync } from 'node:fs';
const tried = (what) => { try { what(); return 'done'; } catch ({ code }) { return code; } };
export const handler = async () => ({
  host: await new Promise((resolve) => {
    createConnection({ host: '192.0.2.1', port: 80 }, () => resolve('done')).on('error', ({ code }) => resolve(code));
  }),
  name: await lookup('example.org').then(() => 'done', ({ code }) => code),
  interpreter: tried(() => writeFileSync(process.execPath, '')),
  environment: tried(() => writeFileSync(process.argv[1], '')),
});`,
  },
} satisfies Record<string, Handler>;
