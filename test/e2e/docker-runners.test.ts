import { execFileSync } from 'node:child_process';
import { readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { DockerAgent } from '../support/docker-agent.ts';
import { buildImage, docker, imageWith, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { REPOSITORY } from '../support/workspace.ts';

const RUNNERS = join(REPOSITORY, 'deploy/runners');
const BIG = 256n * 1024n * 1024n;

let nodeImage = '';
let goImage = '';

/** Builds a runner's image as its README says, on a base that needs no registry. */
function buildRunner(language: string, base: string): string {
  const context = join(RUNNERS, language);
  const name = `harrier-test/runner-${language}:1`;
  buildImage(name, readFileSync(join(context, 'Dockerfile'), 'utf8'), context, base);
  return name;
}

beforeAll(async () => {
  await startDockerEngine();
  // The package has the program alone; an image has it in a directory `bin`.
  nodeImage = imageWith('harrier-test/nodejs:1', dirname(dirname(realpathSync(process.execPath))), '/opt/node');
  const goRoot = execFileSync('go', ['env', 'GOROOT'], { encoding: 'utf8' }).trim();
  goImage = buildRunner('go', imageWith('harrier-test/go:1', goRoot, '/usr/local/go'));
}, 600_000);

/** Runs source text in an image. */
async function runSource(
  language: string,
  image: string,
  source: string,
  handler = 'handler',
  input: object = { n: 2 },
) {
  const agent = await DockerAgent.start();
  return await agent.run('e1', {
    program: {
      case: 'script',
      value: { language, source, handler, filename: `module.${language === 'go' ? 'go' : 'js'}` },
    },
    environment: { kind: { case: 'docker', value: { image } } },
    inputJson: Buffer.from(JSON.stringify(input)),
    limits: {
      memoryBytes: 4n * BIG,
      stdoutBytes: BIG,
      stderrBytes: BIG,
      outputBytes: 1_000_000n,
      tmpBytes: BIG,
      processes: 256,
    },
  });
}

describe('a module in Node.js', () => {
  const run = async (source: string, handler?: string, input?: object) =>
    await runSource('nodejs', nodeImage, source, handler, input);

  test.each([
    ['ES module', 'export async function handler(input) { console.log("printed"); return { n: input.n * 2 }; }'],
    ['CommonJS', 'exports.handler = (input) => { process.stdout.write("printed\\n"); return { n: input.n * 2 }; };'],
  ])('is run in any image that has it: %s', async (_, source) => {
    const end = await run(source);
    expect(end, end.error?.message).toMatchObject({ outcome: 'succeeded', result: '{"n":4}' });
    expect(end.stderr.toString()).toBe('printed\n');
  });

  test.each([
    [
      'what it throws',
      'export function handler() { throw new RangeError("too far"); }',
      'HANDLER_ERROR',
      'RangeError: too far',
    ],
    [
      'what it throws later',
      'export function handler() { return new Promise(() => setTimeout(() => { throw new Error("late") })); }',
      'HANDLER_ERROR',
      'Error: late',
    ],
    ['a missing function', 'export const other = 1;', 'HANDLER_NOT_FOUND', 'exports no function "handler"'],
    ['bad syntax', 'export function handler( {', 'HANDLER_ERROR', 'SyntaxError'],
    ['no object', 'export const handler = () => [1];', 'OUTPUT_INVALID', 'an array'],
    ['NaN', 'export const handler = () => ({ x: NaN });', 'OUTPUT_INVALID', '$.x: NaN is not a JSON number'],
    ['an exit code', 'export const handler = () => process.exit(3);', 'EXIT_NONZERO', 'exit code 3'],
  ])('fails with %s', async (_, source, code, message) => {
    const end = await run(source);
    expect(end).toMatchObject({ outcome: 'failed', code, error: { message: expect.stringContaining(message) } });
    expect(JSON.stringify(end.error?.details ?? {})).not.toContain('runner.mjs');
  });

  test('tells of an exception what the sandbox tells', async () => {
    const { error } = await run('export function handler() {\n  throw new RangeError("too far");\n}');
    expect(error?.details).toEqual({
      type: 'RangeError',
      traceback: expect.stringMatching(/^RangeError: too far\n +at handler \(module\.js:2:9\)/),
    });
  });

  test('gives a large result whole', async () => {
    const end = await run('export const handler = (input) => ({ text: "x".repeat(input.n) });', 'handler', {
      n: 900_000,
    });
    expect(end.result.length).toBe(900_000 + '{"text":""}'.length);
  });
});

describe('a module in Go', () => {
  const run = async (source: string) => await runSource('go', goImage, `package main\n${source}`);

  test('is compiled and run', async () => {
    const end = await run(`
import "fmt"
type In struct { N int \`json:"n"\` }
func handler(input In) (map[string]any, error) {
	fmt.Println("printed")
	return map[string]any{"n": input.N * 2}, nil
}`);
    expect(end, `${end.error?.message}\n${end.stderr}`).toMatchObject({ outcome: 'succeeded', result: '{"n":4}' });
    expect(end.stderr.toString()).toBe('printed\n');
  });

  test.each([
    [
      'its error',
      'import "errors"\nfunc handler(map[string]any) (map[string]any, error) { return nil, errors.New("no") }',
      'HANDLER_ERROR',
      'no',
    ],
    ['a panic', 'func handler(map[string]any) map[string]any { panic("lost") }', 'HANDLER_ERROR', 'panic: lost'],
    [
      'an input of another type',
      'func handler(struct{ N string `json:"n"` }) map[string]any { return nil }',
      'INPUT_INVALID',
      'cannot unmarshal number',
    ],
    ['a missing function', 'func other() {}', 'HANDLER_NOT_FOUND', 'undefined: handler'],
    ['bad syntax', 'func handler( {', 'HANDLER_ERROR', 'module.go:2'],
    ['no object', 'func handler(map[string]any) int { return 1 }', 'OUTPUT_INVALID', 'not a JSON object'],
  ])('fails with %s', async (_, source, code, message) => {
    expect(await run(source)).toMatchObject({
      outcome: 'failed',
      code,
      error: { message: expect.stringContaining(message) },
    });
  });

  test('tells where it panicked', async () => {
    const { error } = await run('func handler(map[string]any) map[string]any { panic("lost") }');
    expect(error?.details).toEqual({ type: 'string', traceback: expect.stringContaining('module.go:2') });
  });
});

describe("a runner is a base for images of one's own", () => {
  async function runImage(image: string) {
    const agent = await DockerAgent.start();
    return await agent.run('e1', {
      program: { case: 'image', value: { image } },
      environment: { kind: { case: 'docker', value: { image } } },
    });
  }

  test.each([
    ['nodejs', () => nodeImage, 'execute.js', 'export const executeFunction = ({ n }) => ({ n: n + 1 });'],
    [
      'python',
      () => PYTHON_IMAGE,
      'execute.py',
      'async def execute_function(input):\\n    print("printed")\\n    return {"n": input["n"] + 1}\\n',
    ],
  ])('%s', async (language, base, file, source) => {
    const runner = buildRunner(language, base());
    expect((await runImage(runner)).result.replaceAll(' ', '')).toMatch(/^\{"echo":\{"n":1(\.0)?\}\}$/);
    const name = `harrier-test/own-${language}:1`;
    buildImage(name, `FROM ${runner}\nUSER root\nRUN printf '${source.replaceAll('"', '\\042')}' > /app/${file}\n`);
    expect(JSON.parse((await runImage(name)).result)).toEqual({ n: 2 });
    docker('image', 'rm', '--force', name);
  });

  test('go', async () => {
    const name = 'harrier-test/own-go:1';
    const source = 'package main\\nfunc executeFunction(input map[string]any) map[string]any { return input }\\n';
    buildImage(
      name,
      `FROM ${goImage} AS build
USER root
RUN mkdir /src && printf '${source}' > /src/execute.go && printf 'module own\\n\\ngo 1.22\\n' > /src/go.mod
RUN go run /opt/harrier/runner.go build /src /app/execute
FROM scratch
COPY --from=build /app/execute /app/execute
ENTRYPOINT ["/app/execute"]
`,
    );
    const end = await runImage(name);
    expect(end.result, end.error?.message).toBe('{"n":1}');
    docker('image', 'rm', '--force', name);
  });
});
