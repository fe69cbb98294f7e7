"""Tells what the packages of a lock take to download, inside the build's sandbox.

Usage: download_size.py PYLOCK, a pylock.toml of uv for one platform: of each package the first file is what is
installed. Prints `# bytes: N`, a comment of a requirements file; nothing when a size is not to be had. The index
tells sizes with the JSON form of its simple API (PEP 700); otherwise the files are asked for.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

_TIMEOUT_S = 10
_AT_ONCE = 16


def size_of(package: str) -> int:
    """Of one `[[packages]]`. Wheels come before the source: they are what is installed where there is one."""
    files = re.findall(r"\{ url = .*?hashes", package, re.DOTALL)
    wheels = package.partition("wheels = ")[2]
    first = next((file for file in files if file in wheels), files[0])
    size = re.search(r"\bsize = (\d+)", first)
    if size is not None:
        return int(size[1])
    url = re.search(r'url = "([^"]+)"', first)
    request = urllib.request.Request(url[1], method="HEAD")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        return int(answer.headers["Content-Length"])


def main() -> int:
    with open(sys.argv[1]) as file:
        packages = file.read().split("[[packages]]")[1:]
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            print(f"# bytes: {sum(pool.map(size_of, packages))}")
    except Exception as error:
        print(f"no size: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
