"""Write the locked requirements: versions and hashes, for every platform, and no index address."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMON = [
    *("--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-emit-index-url", "--no-emit-find-links", "--no-header", "--quiet"),
]


def lock(output: str, *arguments: str) -> None:
    """Resolve ``arguments`` into ``requirements/<output>.txt``."""
    command = ["uv", "pip", "compile", *COMMON, *arguments, "--output-file", f"requirements/{output}.txt"]
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)


if __name__ == "__main__":
    lock("runtime", "pyproject.toml")
    lock("build", "requirements/build.in")
    lock("dev", "pyproject.toml", "--group", "dev", "--constraint", "requirements/runtime.txt")
    lock("image", "pyproject.toml", "--all-extras", "--constraint", "requirements/runtime.txt")
    lock("deploy", "--group", "deploy", "--constraint", "requirements/dev.txt")
    lock("stores", "--group", "stores", "--constraint", "requirements/dev.txt")
    lock("bench", "--group", "bench", "--constraint", "requirements/dev.txt")
