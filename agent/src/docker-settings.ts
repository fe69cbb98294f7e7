import { availableParallelism } from 'node:os';
import { isAbsolute, resolve } from 'node:path';
import type { SettingsReader } from '@harrier/shared';
import { ImageReferenceError, parseImageReference } from './docker/image-reference.ts';

/** What an operator may set of Docker; docs/docker.md explains it. */
export interface DockerSettings {
  /** Unix socket of the engine. */
  socketPath: string;
  /** Patterns of the images that this agent runs; none: no image at all. */
  allowedImages: readonly string[];
  /** A `config.json` with the credentials of registries. */
  credentialsPath: string | undefined;
  /** Images for code that names none, by language. */
  runnerImages: Readonly<Record<string, string>>;
  /** Containers at once, at most. */
  maxContainers: number;
  /** A container that is kept warm leaves when nobody has used it for this long. */
  containerIdleMs: number;
}

const DEFAULT_SOCKET = '/run/docker.sock';
const LANGUAGES = ['python', 'nodejs', 'go'];
const MIN_CONTAINERS = 8;
const CONTAINERS_PER_CORE = 4;

export function readDockerSettings(settings: SettingsReader): DockerSettings {
  const runnerImages = readRunnerImages(settings);
  const credentialsPath = settings.text('HARRIER_AGENT_DOCKER_CONFIG');
  const containers = Math.max(MIN_CONTAINERS, CONTAINERS_PER_CORE * availableParallelism());
  return {
    socketPath: socketPath(settings),
    // What the operator has chosen for a language is allowed with it.
    allowedImages: [...settings.list('HARRIER_AGENT_ALLOWED_IMAGES'), ...Object.values(runnerImages)],
    credentialsPath: credentialsPath === undefined ? undefined : resolve(credentialsPath),
    runnerImages,
    maxContainers: settings.integer('HARRIER_AGENT_MAX_CONTAINERS', containers, { min: 1, max: 10_000 }),
    containerIdleMs: 1000 * settings.integer('HARRIER_AGENT_CONTAINER_IDLE_S', 300, { min: 1, max: 86_400 }),
  };
}

/** The agent's own setting, else that of Docker's command. Files of the agent are mounted: only a local engine will do. */
function socketPath(settings: SettingsReader): string {
  const name = settings.text('HARRIER_AGENT_DOCKER_HOST') === undefined ? 'DOCKER_HOST' : 'HARRIER_AGENT_DOCKER_HOST';
  const text = settings.text(name, DEFAULT_SOCKET);
  const path = text.replace(/^unix:\/\//, '');
  if (isAbsolute(path)) return path;
  // Docker's own variable may be meant for something else on this host.
  if (name === 'DOCKER_HOST') return DEFAULT_SOCKET;
  settings.problems.push(`${name} must be unix:///PATH of an engine on this host, not "${text}"`);
  return DEFAULT_SOCKET;
}

function readRunnerImages(settings: SettingsReader): Record<string, string> {
  const images: Record<string, string> = {};
  for (const pair of settings.list('HARRIER_AGENT_RUNNER_IMAGES')) {
    const [language = '', image = ''] = splitOnce(pair);
    if (!LANGUAGES.includes(language) || !isImage(image)) {
      const form = `LANGUAGE=IMAGE,… with ${LANGUAGES.join(', ')}`;
      settings.problems.push(`HARRIER_AGENT_RUNNER_IMAGES must be ${form}, not "${pair}"`);
    } else {
      images[language] = image;
    }
  }
  return images;
}

function splitOnce(pair: string): string[] {
  const equals = pair.indexOf('=');
  return equals < 0 ? [pair] : [pair.slice(0, equals), pair.slice(equals + 1)];
}

function isImage(text: string): boolean {
  try {
    parseImageReference(text);
    return true;
  } catch (error) {
    if (error instanceof ImageReferenceError) return false;
    throw error;
  }
}
