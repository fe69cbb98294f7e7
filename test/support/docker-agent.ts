import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { createLogger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Assignment, AssignmentSchema } from '@harrier/shared/gen/link';
import { onTestFinished } from 'vitest';
import { ContainerBudget } from '../../agent/src/docker/container-budget.ts';
import { DockerEngine } from '../../agent/src/docker/engine.ts';
import { ImagePolicy } from '../../agent/src/docker/image-policy.ts';
import { Images } from '../../agent/src/docker/images.ts';
import type { ContainerGuard } from '../../agent/src/executor/container-guard.ts';
import { SCRIPT_RUNNERS } from '../../agent/src/executor/container-program.ts';
import { DockerExecutor } from '../../agent/src/executor/docker-executor.ts';
import type { AttemptEnd, AttemptKey, ExecutorEvents, StartRefusal } from '../../agent/src/executor/executor.ts';
import { DOCKER_SOCKET, docker, PYTHON_IMAGE } from './docker-engine.ts';
import { until } from './wait.ts';
import { directory } from './workspace.ts';

type AssignmentFields = Omit<MessageInitShape<typeof AssignmentSchema>, '$typeName' | '$unknown'>;

const UNPREPARED = { start: undefined, release: () => {} };
type Held = AttemptKey & { finished: boolean };

const MIB = 1024n * 1024n;

/** Everything that an executor has told, with the log as the control plane would store it. */
class Record implements ExecutorEvents {
  readonly started = new Set<string>();
  readonly logs = new Map<string, Buffer>();
  readonly ends = new Map<string, AttemptEnd>();
  readonly recovered: (readonly Held[])[] = [];
  /** Acknowledge what comes at once. */
  acknowledging = true;
  executor: DockerExecutor | undefined;
  #wake = Promise.withResolvers<void>();

  onStarted({ executionId }: AttemptKey): void {
    this.started.add(executionId);
    this.#tell();
  }

  onOutput(key: AttemptKey, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const name = `${key.executionId} ${stream}`;
    const before = this.logs.get(name) ?? Buffer.alloc(0);
    if (offset > before.length) throw new Error(`a gap in ${name}: ${before.length} to ${offset}`);
    this.logs.set(name, Buffer.concat([before.subarray(0, offset), data]));
    if (this.acknowledging) this.acknowledge(key);
    this.#tell();
  }

  acknowledge(key: AttemptKey): void {
    const length = (stream: string) => this.logs.get(`${key.executionId} ${stream}`)?.length ?? 0;
    // As over a link: never from within the call.
    setImmediate(() => this.executor?.acknowledgeOutput(key, length('stdout'), length('stderr')));
  }

  onProgress(): void {}

  onFinished({ executionId }: AttemptKey, end: AttemptEnd): void {
    this.ends.set(executionId, end);
    this.#tell();
  }

  onRecovered(_: unknown, held: readonly Held[]): void {
    this.recovered.push(held);
    this.#tell();
  }

  onLost(): void {}

  async until<T>(look: () => T | undefined | false): Promise<T> {
    for (;;) {
      const wake = this.#wake.promise;
      const seen = look();
      if (seen !== undefined && seen !== false) return seen;
      await wake;
    }
  }

  #tell(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}

export interface DockerAgentOptions {
  dataDir?: string;
  allowed?: readonly string[];
  credentialsPath?: string;
  places?: number;
  /** Default: there is no launcher, and no lease. */
  guard?: ContainerGuard;
}

/** The parts of an agent that run containers, on the tests' engine, without link and control plane. */
export class DockerAgent {
  readonly dataDir: string;
  readonly engine: DockerEngine;
  readonly images: Images;
  readonly budget: ContainerBudget;
  readonly record = new Record();
  readonly executor: DockerExecutor;

  private constructor(options: DockerAgentOptions) {
    const logger = createLogger({ name: 'test', level: 'silent' });
    this.dataDir = options.dataDir ?? directory('da');
    this.engine = new DockerEngine({ socketPath: DOCKER_SOCKET, logger });
    const policy = new ImagePolicy(options.allowed ?? ['*']);
    this.images = new Images({ engine: this.engine, policy, credentialsPath: options.credentialsPath, logger });
    this.budget = new ContainerBudget(options.places ?? 8);
    const { engine, images, budget, dataDir } = this;
    const runners = SCRIPT_RUNNERS;
    const guard = options.guard ?? { guard: () => {}, release: () => {} };
    this.executor = new DockerExecutor({
      engine,
      images,
      budget,
      dataDir,
      runners,
      guard,
      events: this.record,
      onRefused: () => false,
      logger,
    });
    this.record.executor = this.executor;
  }

  /** Starts one; it is closed after the test, and what it runs is removed by then. */
  static async start(options: DockerAgentOptions = {}): Promise<DockerAgent> {
    const agent = new DockerAgent(options);
    await agent.engine.open();
    agent.executor.open();
    onTestFinished(async () => {
      agent.close();
      await removeContainers(`label=harrier.agent=${agent.dataDir}`);
    });
    return agent;
  }

  /** Leaves everything as an agent that has crashed does. */
  close(): void {
    this.executor.close();
    this.engine.close();
  }

  /** Starts an attempt whose image nobody has prepared. */
  start(executionId: string, fields: AssignmentFields): StartRefusal | undefined {
    return this.executor.start(assignment(executionId, fields), UNPREPARED, new Uint8Array(0));
  }

  /** Runs to the end and forgets it. */
  async run(executionId: string, fields: AssignmentFields): Promise<RunResult> {
    const refused = this.start(executionId, fields);
    if (refused !== undefined) throw new Error(`refused: ${refused.error.message}`);
    const result = await this.end(executionId);
    this.executor.forget({ executionId, attempt: 1 });
    return result;
  }

  /** Waits for the end of an attempt. */
  async end(executionId: string): Promise<RunResult> {
    const end = await this.record.until(() => this.record.ends.get(executionId));
    const log = (stream: string) => this.record.logs.get(`${executionId} ${stream}`) ?? Buffer.alloc(0);
    return {
      ...end,
      code: Object.entries(Code).find(([, value]) => value === end.error?.code)?.[0] ?? '',
      result: Buffer.from(end.output).toString(),
      stdout: log('stdout'),
      stderr: log('stderr'),
    };
  }

  /** Waits until the log of the attempt has the text. */
  async untilLogged(executionId: string, text: string): Promise<void> {
    await this.record.until(() => this.record.logs.get(`${executionId} stderr`)?.includes(text));
  }
}

/** Removes containers, also those that are just being removed by somebody else. */
async function removeContainers(filter: string): Promise<void> {
  await until('the containers of the test to be gone', () => {
    const left = docker('ps', '--all', '--quiet', '--filter', filter);
    if (left === '') return true;
    try {
      docker('rm', '--force', ...left.split('\n'));
    } catch {
      // It is being removed.
    }
    return false;
  });
}

export interface RunResult extends AttemptEnd {
  /** Name of the error's code. */
  code: string;
  /** The output as text. */
  result: string;
  stdout: Buffer;
  stderr: Buffer;
}

/** An assignment with every limit set, as the control plane sends it. */
export function assignment(executionId: string, fields: AssignmentFields): Assignment {
  const defaults: AssignmentFields = {
    ref: { executionId, attempt: 1 },
    tenant: 'acme',
    inputJson: Buffer.from('{"n": 1.0}'),
    timeout: { seconds: 60n },
    limits: {
      memoryBytes: 128n * MIB,
      stdoutBytes: 16n * MIB,
      stderrBytes: 16n * MIB,
      outputBytes: 8n * MIB,
      tmpBytes: 16n * MIB,
      processes: 64,
    },
    environment: { kind: { case: 'docker', value: { image: PYTHON_IMAGE } } },
  };
  return create(AssignmentSchema, { ...defaults, ...fields } as MessageInitShape<typeof AssignmentSchema>);
}

/** An image that follows the container protocol, made of the image of Python and a script. */
export function pythonProgram(script: string): AssignmentFields {
  return { program: { case: 'image', value: { image: PYTHON_IMAGE, argv: ['python3', '-c', script] } } };
}
