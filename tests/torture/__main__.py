"""``python -m tests.torture --kills 20``: 0 if nothing that was acknowledged is lost, 1 with the story if it is."""

import argparse
import asyncio
import contextlib
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.duties import Duties
from tests.torture.ground import Kept, disk, why_no_disk
from tests.torture.model import Violation
from tests.torture.torment import Torment


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many times the server is killed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="where all choices come from")
    parser.add_argument("--workers", type=int, help="processes of the server (default: 1 and 4 in turn)")
    parser.add_argument("--duties", action="store_true", help="kill what looks after content, not the server")
    parser.add_argument("--power", action="store_true", help="cut the power of its disk too (needs root)")
    options = parser.parse_args()
    if options.power and (why := why_no_disk()):
        parser.error(why)
    scratch = Path(tempfile.mkdtemp(prefix="moorage-torture-"))
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            if options.duties:
                duties = Duties(folder=scratch, kills=options.kills, seed=options.seed, tell=_tell)
                asyncio.run(duties.run())
                lasted = time.monotonic() - started
                print(f"{duties.done} kills in {lasted:.0f} s with seed {options.seed}: nothing lost")
                shutil.rmtree(scratch)
                return 0
            ground = stack.enter_context(disk(scratch)) if options.power else Kept(scratch)
            torment = Torment(
                ground=ground, kills=options.kills, seed=options.seed, workers=options.workers, tell=_tell
            )
            asyncio.run(torment.run())
    except Violation as violation:
        print(f"VIOLATION: {violation}", file=sys.stderr)
        if not options.power:
            print(f"what the server left is in {scratch}", file=sys.stderr)
        else:
            shutil.rmtree(scratch)
        return 1
    shutil.rmtree(scratch)
    seen, what = torment.totals, "power cuts" if options.power else "kills"
    print(
        f"{torment.done} {what} in {time.monotonic() - started:.0f} s with seed "
        f"{options.seed}: {torment.model.acknowledged} acknowledged operations, nothing lost; {seen.happened} "
        f"unanswered ones were done and {seen.vanished} not, none by halves; {seen.resumed} uploads resumed; "
        f"{seen.facts} facts looked at"
    )
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


sys.exit(main())
