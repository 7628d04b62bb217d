"""npm peers of the tests: each folder here with a package.json and its lock is installed once, outside of the repository.

<cache>/peer-<name>-<digest of the lock>/node_modules: $XDG_CACHE_HOME or ~/.cache, below millwright/.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import need

_HERE = Path(__file__).resolve().parent
_FETCH_S = 300.0


def node() -> str:
    """Path of node, or a skip with the reason."""
    return shutil.which("node") or need("node", "not installed (Debian: apt-get install nodejs npm)")


def peer(name: str) -> Path:
    """The folder with the peer's scripts and node_modules, fetched if it is not there; a skip says what is missing."""
    node()
    source = _HERE / name
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millwright"
    folder = cache / f"peer-{name}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"peer-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            npm = shutil.which("npm") or need("npm", "not installed (Debian: apt-get install npm)")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file in ("package.json", "package-lock.json"):
                shutil.copy(source / file, folder)
            argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            ran = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S)
            if ran.returncode:
                need(f"the npm peer {name}", f"npm cannot fetch it: {ran.stderr[-300:]}")
            (folder / "done").touch()
        for script in source.glob("*.mjs"):  # beside what it imports
            shutil.copy(script, folder)
    return folder
