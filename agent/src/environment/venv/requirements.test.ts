import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Environment_VenvSchema } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { hasHashes, plainLock, requirementsOf } from './requirements.ts';

const HASH = `--hash=sha256:${'a'.repeat(64)}`;

describe('requirementsOf', () => {
  test.each([
    'numpy',
    'numpy>=2',
    'numpy >= 2, < 3',
    'numpy==2.*',
    'requests[socks, security]~=2.31',
    'six (>=1.10)',
    'tomli; python_version < "3.11"',
    "pywin32 ; sys_platform == 'win32' and (implementation_name == 'cpython')",
    'zope.interface===7.0',
    'a-b_c.d!=1.0+local.1',
  ])('takes %s', (requirement) => {
    expect(requirementsOf(create(Environment_VenvSchema, { requirements: [requirement] }))).toEqual([requirement]);
  });

  test.each([
    '-r other.txt',
    '--pre',
    '-e .',
    'six --index-url https://evil.example',
    'six -i https://evil.example',
    'six ; python_version > "3" --extra-index-url https://evil.example',
    'six\u0085--extra-index-url=https://evil.example',
    'six\u000c--extra-index-url=https://evil.example',
    'six\u2028--pre',
    'six\n--pre',
    'six\\',
    '$' + '{UV_DEFAULT_INDEX}',
    'six==$' + '{VERSION}',
    'six @ https://evil.example/six.whl',
    'six@./local',
    'https://evil.example/six.whl',
    'git+https://evil.example/six',
    './six',
    '/six',
    '~/six',
    'six.whl/../x',
    'six # comment',
    '',
  ])('refuses %j', (requirement) => {
    const venv = create(Environment_VenvSchema, { requirements: [requirement] });
    expect(() => requirementsOf(venv)).toThrow(expect.objectContaining({ code: Code.POLICY_DENIED }));
  });
});

test('texts that are longer than anybody writes are refused with their length', () => {
  const refused = (venv: MessageInitShape<typeof Environment_VenvSchema>, message: string) =>
    expect(() => requirementsOf(create(Environment_VenvSchema, venv))).toThrow(
      expect.objectContaining({ code: Code.ENVIRONMENT_FAILED, message: expect.stringContaining(message) }),
    );
  refused({ requirements: ['a', 'a'.repeat(5_000)] }, 'requirements[1]: 5000 characters');
  refused({ requirements: Array(200_000).fill('a') }, 'requirements together: 400000 characters');
  refused({ pyproject: `#${'a'.repeat(300_000)}` }, 'pyproject.toml: 300001 characters');
  refused(
    { pyproject: `[project]\ndependencies = ["a${' '.repeat(100_000)}@"]` },
    'requirements[0]: 100002 characters',
  );
  refused({ lock: '#'.repeat(3_000_000) }, 'the lock: 3000000 characters');
});

describe('plainLock', () => {
  test.each([
    ['lines that go on', 'a \\\n'.repeat(300_000)],
    ['comments in a comment', `a==1${' #'.repeat(500_000)}\u2028`],
    ['options', `a ${'--hash= '.repeat(200_000)}`],
  ])('reads %s once', (_, lock) => {
    try {
      expect(plainLock(lock)).toBe('a==1\n');
    } catch (error) {
      expect([Code.POLICY_DENIED, Code.ENVIRONMENT_FAILED]).toContain((error as { code: number }).code);
    }
  });

  test('keeps pins with markers and hashes, one a line, and nothing else', () => {
    const lock = `# made by a resolver
six==1.17.0 \\
    ${HASH} \\
    --hash sha256:${'b'.repeat(64)}
    # via something

requests[socks]==2.32.3 ; python_version >= "3.9"   # why
a==1!2.0+local.1
`;
    const plain = plainLock(lock);
    expect(plain).toBe(
      `six==1.17.0 ${HASH} --hash=sha256:${'b'.repeat(64)}\nrequests[socks]==2.32.3 ; python_version >= "3.9"\na==1!2.0+local.1\n`,
    );
    expect(plainLock(plain)).toBe(plain);
    expect(hasHashes(plain)).toBe(true);
  });

  test.each([
    ['a comment that goes on', '# x \\\n--extra-index-url https://evil.example\nsix==1.17.0'],
    ['a form feed', 'six==1.17.0 #\f--extra-index-url https://evil.example'],
    ['a vertical tab', 'six==1.17.0\v--pre'],
    ['a carriage return', 'six==1.17.0\r--pre'],
    ['an option', '--index-url https://evil.example\nsix==1.17.0'],
    ['an option behind a pin', `six==1.17.0 ${HASH} --no-deps`],
    ['a variable', '$' + '{UV_DEFAULT_INDEX}'],
    ['a URL', 'six @ https://evil.example/six.whl'],
    ['no version', 'six'],
    ['a range', 'six>=1'],
    ['a wildcard', 'six==1.*'],
    ['two versions', 'six==1,==2'],
  ])('refuses %s', (_, lock) => {
    // What is left of a comment with a form feed in it is a comment; what stands behind it must not come through.
    let plain: string;
    try {
      plain = plainLock(lock);
    } catch (error) {
      expect([Code.POLICY_DENIED, Code.ENVIRONMENT_FAILED]).toContain((error as { code: number }).code);
      return;
    }
    expect(plain).toBe('six==1.17.0\n');
  });
});
