import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, realpathSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { buildImage, docker, dockerEnvironment, imageWith, startDockerEngine } from './docker-engine.ts';
import { directory, REPOSITORY } from './workspace.ts';

/** The certificates with which this machine reaches the package registries. */
const CERTIFICATES = process.env.NODE_EXTRA_CA_CERTS ?? '/etc/ssl/certs/ca-certificates.crt';
const PROXIES = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy'];

/**
 * Builds an image of deploy/docker on bases that need no registry of images; packages come from npm's and Debian's.
 * @param fresh nothing of a former build is used
 * @returns its name
 */
export async function buildProductImage(product: 'control-plane' | 'agent', fresh = false): Promise<string> {
  await startDockerEngine();
  const name = `harrier-test/${product}:${fresh ? 'fresh' : '1'}`;
  const proxies = PROXIES.filter((variable) => process.env[variable] !== undefined);
  execFileSync(
    'docker',
    [
      ...['build', '--quiet', '--network', 'host', '--tag', name, ...(fresh ? ['--no-cache'] : [])],
      ...['--file', join(REPOSITORY, 'deploy/docker', product, 'Dockerfile')],
      ...['--build-arg', `BUILD_BASE=${buildBase()}`, '--build-arg', `BASE=${nodeBase()}`],
      ...proxies.flatMap((variable) => ['--build-arg', `${variable}=${process.env[variable]}`]),
      REPOSITORY,
    ],
    { env: dockerEnvironment(), stdio: ['ignore', 'ignore', 'pipe'] },
  );
  return name;
}

/** Debian with the Node.js of this repository. */
function nodeBase(): string {
  return imageWith('harrier-test/nodejs:1', dirname(dirname(realpathSync(process.execPath))), '/opt/node');
}

/** The same with npm, as it is on this machine. */
function buildBase(): string {
  const name = 'harrier-test/node-build:1';
  if (docker('image', 'ls', '--quiet', name) !== '') return name;
  const tree = directory('nb');
  const npm = realpathSync(execFileSync('which', ['npm'], { encoding: 'utf8' }).trim());
  mkdirSync(join(tree, 'bin'));
  cpSync(dirname(dirname(npm)), join(tree, 'npm'), { recursive: true });
  symlinkSync('../npm/bin/npm-cli.js', join(tree, 'bin/npm'));
  cpSync(realpathSync(CERTIFICATES), join(tree, 'ca.crt'));
  const dockerfile = `FROM ${nodeBase()}\nCOPY . /opt/build\nENV PATH=/opt/build/bin:$PATH NODE_EXTRA_CA_CERTS=/opt/build/ca.crt\n`;
  buildImage(name, dockerfile, tree);
  return name;
}
