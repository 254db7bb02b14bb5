"""Look for known vulnerabilities in the locked requirements: ``make audit``.

The exit code is 0 if there are none, 1 if there are, 3 if no advisory service can be asked here (0 with
``--if-available``, which says so). Where a service knows only some of the packages, the others are named. Further
options are pip-audit's.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCKS = ("runtime", "build", "dev")  # bench only draws figures
UNAVAILABLE = 3
# What pip-audit ends with: nothing found, or something found or nobody reached.
ANSWERS = (0, 1)


def ask(service: str, lock: str, options: Sequence[str]) -> list[dict[str, Any]]:
    """What the service says of each package of a lock; nothing where it cannot be asked."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner=off"),
        *(f"--requirement=requirements/{lock}.txt", f"--vulnerability-service={service}", "--format=json", *options),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in ANSWERS:
        raise SystemExit(done.stderr)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines()
        print(f"{service} cannot be asked about {lock}: {said[-1] if said else ''}", file=sys.stderr)
        return []
    return packages


def main() -> int:
    """Ask one service after the other until one knows something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--if-available", action="store_true", help="end with 0 where no service can be asked")
    parser.add_argument("--services", default="pypi,osv", help="in the order in which they are asked")
    arguments, options = parser.parse_known_args()
    for service in arguments.services.split(","):
        packages = {each["name"]: each for lock in LOCKS for each in ask(service, lock, options)}
        known = {name: each["vulns"] for name, each in packages.items() if "vulns" in each}
        if not known:
            continue
        found = [(name, each) for name, vulnerabilities in known.items() for each in vulnerabilities]
        for name, each in found:
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            print(f"{name} {packages[name]['version']}: {each['id']} {' '.join(each['aliases'])}; fixed in {fixed}")
        for name in sorted(packages.keys() - known.keys()):
            print(f"{name}: not audited: {packages[name]['skip_reason']}")
        print(f"{len(known)} packages audited by {service}: {len(found)} known vulnerabilities")
        return 1 if found else 0
    print("NOT RUN: the audit of requirements; no advisory service that knows them can be reached from here.")
    return 0 if arguments.if_available else UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
