"""Fetches axe-core, which looks for what people with disabilities would stumble over on a page: `fetch_axe.py FILE`.

One file of one version, told by its hash: by npm where it is installed, else by https from npm's registry
(or NPM_CONFIG_REGISTRY). It is not kept in the repository, because it has a licence of its own (MPL-2.0).
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
MEMBER = "package/axe.min.js"
REGISTRY = "https://registry.npmjs.org"
WAIT = 120  # seconds


def by_npm() -> bytes:
    """The package as npm packs it. Raises OSError where npm is missing or fails."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["npm", "pack", "--silent", f"axe-core@{VERSION}"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=WAIT, check=False)
        if done.returncode:
            raise OSError(f"npm pack: {(done.stderr.strip() or 'it failed').splitlines()[-1]}")
        return Path(directory, f"axe-core-{VERSION}.tgz").read_bytes()


def by_https(registry: str) -> bytes:
    """The package from the registry's own address for it. Raises OSError."""
    address = f"{registry.rstrip('/')}/axe-core/-/axe-core-{VERSION}.tgz"
    with urllib.request.urlopen(address, timeout=WAIT) as answer:
        packed: bytes = answer.read()
        return packed


def source(packed: bytes) -> bytes:
    """The one file. Raises OSError when it is not in the package, or is not the one that we know."""
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            found = archive.extractfile(MEMBER)
            text = b"" if found is None else found.read()
    except (tarfile.TarError, KeyError) as error:
        raise OSError(f"it is no package with {MEMBER} ({error})") from None
    if hashlib.sha256(text).hexdigest() != SHA256:
        raise OSError(f"its {MEMBER} is another than the one of axe-core {VERSION}")
    return text


def fetch(registry: str) -> bytes:
    """Either way, the first that gives the right file. Raises OSError with the reasons when neither does."""
    reasons = []
    for way in (by_npm, lambda: by_https(registry)):
        try:
            return source(way())
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(str(error))
    raise OSError("; ".join(reasons))


def main(path: Path) -> int:
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or REGISTRY
    try:
        text = fetch(registry)
    except OSError as error:
        print(f"axe-core {VERSION} cannot be fetched: {error}; put its axe.min.js at {path}", file=sys.stderr)
        return 1
    part = path.with_name(path.name + ".part")
    part.write_bytes(text)
    part.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
