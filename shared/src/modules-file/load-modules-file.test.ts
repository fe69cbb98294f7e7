import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { formatProblem } from '../yaml-file/problem.ts';
import { loadModulesFile } from './load-modules-file.ts';

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'modules-file-'));
});
afterEach(() => rm(directory, { recursive: true }));

async function load(files: Record<string, string>) {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), text);
  }
  const { modules, problems, codeFiles } = await loadModulesFile(join(directory, 'modules.yaml'));
  return {
    modules: modules.map(({ module }) => module),
    problems: problems.map((problem) => formatProblem('m.yaml', problem).replaceAll(directory, '.')),
    codeFiles: codeFiles.map((file) => file.replace(directory, '.')),
  };
}

describe('loadModulesFile', () => {
  it('reads a module that is a directory, with what it needs', async () => {
    const { modules, problems, codeFiles } = await load({
      'modules.yaml': 'modules:\n  - { name: p, version: "0.1.0", env: venv, path: ./processor }\n',
      'processor/handler.py': 'def handler(input): ...\n',
      'processor/requirements.txt': '# numbers\nnumpy>=2  # fast\n\npandas \\\n  ; python_version >= "3.9"\n',
    });
    expect(problems).toEqual([]);
    expect(modules).toMatchObject([
      {
        code: 'def handler(input): ...\n',
        environment: {
          kind: { case: 'venv', value: { requirements: ['numpy>=2', 'pandas    ; python_version >= "3.9"'] } },
        },
      },
    ]);
    expect(codeFiles).toEqual(['./processor', './processor/handler.py', './processor/requirements.txt']);
  });

  it('leaves the files of a directory alone when the entry has settings', async () => {
    const { modules } = await load({
      'modules.yaml':
        'modules:\n  - { name: p, version: "0.1.0", path: p, env: { venv: { requirements: needs.txt, lock: lock.txt } } }\n',
      'p/main.py': 'code',
      'p/requirements.txt': 'left-alone',
      'needs.txt': 'six',
      'lock.txt': 'six==1.17.0',
    });
    expect(modules).toMatchObject([
      { code: 'code', environment: { kind: { value: { requirements: ['six'], lock: 'six==1.17.0' } } } },
    ]);
  });

  it('tells what cannot be read, and where it is named', async () => {
    const { problems } = await load({
      'modules.yaml': `modules:
  - { name: a, version: "0.1.0", path: empty }
  - { name: b, version: "0.1.0", path: gone.py, env: { conda: { file: environment.yml } } }
`,
      'empty/README.md': '',
    });
    expect(problems).toEqual([
      'm.yaml:2:40: modules[0].path: ./empty has none of handler.py, main.py, __init__.py',
      expect.stringMatching(/^m\.yaml:3:40: modules\[1\]\.path: \.\/gone\.py cannot be read: ENOENT/),
      expect.stringMatching(
        /^m\.yaml:3:71: modules\[1\]\.env\.conda\.file: \.\/environment\.yml cannot be read: ENOENT/,
      ),
    ]);
  });
});
