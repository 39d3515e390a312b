"""Every command, ended by SIGKILL, SIGTERM and SIGINT at random moments and started again: what became of its results.

    python benchmarks/kills.py --kills 30

For each command a small workspace is made as far as it needs, and what the command makes of it is kept. Then it is
started and ended by a signal, 30 times by each of the three, at a moment anywhere in the time that it takes; whatever
it has done stays, and the next start goes on from there. At last it may finish. Every file, temporary ones too, must be
byte for byte that of a command which was never ended (measured times aside), no end may tell of an error, and none by
SIGTERM or SIGINT may leave a temporary folder. A command that is done before the signal is compared and begins anew.

Writes `benchmarks/results/kills.json` after each command, from which the docs take their table. `--only` sweeps some of
them, and leaves the figures of the others as they are. Expected: no command fails. About half an hour on one core.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
os.environ["RHO_TEST_IMPORTS"] = "1"  # signals are to come while a command imports, too
from helpers.killable import ENDS
from helpers.kills import COMMANDS, IMAGES, sweep
from helpers.small_workspace import SmallWorkspace

OUTPUT = Path(__file__).parent / "results" / "kills.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="by each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[*COMMANDS], default=[*COMMANDS], metavar="COMMAND")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    # A shell's background job ignores Ctrl-C, as would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = {one["asked"]: one for one in _former(arguments.output)}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RHO_CACHE"] = f"{folder}/cache"
        place = SmallWorkspace(Path(folder), images=IMAGES, shard_size=20)
        for asked in arguments.only:
            found[asked] = outcome(place, asked, arguments.kills, arguments.seed)
            print(found[asked], flush=True)
            commands = [found[name] for name in COMMANDS if name in found]
            result = {"benchmark": "kills", "machine": machine(), "seed": arguments.seed, "commands": commands}
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(any(one["failed"] for one in found.values()))


def _former(file: Path) -> list[dict[str, Any]]:
    commands: list[dict[str, Any]] = json.loads(file.read_text())["commands"] if file.exists() else []
    return commands


def outcome(place: SmallWorkspace, asked: str, kills: int, seed: int) -> dict[str, Any]:
    try:
        swept = sweep(place, asked, list(ENDS) * kills, seed)
    except AssertionError as error:
        return {"asked": asked, "failed": str(error)[-2000:]}
    return asdict(swept) | {"failed": None}


if __name__ == "__main__":
    main()
