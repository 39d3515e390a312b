"""Commands that are ended by signals at random moments and started again, until they are done."""

import hashlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from helpers import jobs
from helpers.killable import ENDS, end, start
from helpers.pair_corpus import tangled_pairs, write_tar_of
from helpers.shards_corpus import CLASSES
from helpers.small_workspace import SmallWorkspace
from helpers.texts import write_table

IMAGES: Final = 160  # of the workspace that the commands are at work on
_IMAGE: Final = "[image]\nsize = 16\n"
_TRAIN: Final = ("--model", "bn_cnn", "--batch-size", "4", "--super-batch-size", "20", "--augmentation", "shift_flip")
_CPU: Final = ("--device", "cpu", "--threads", "1")


def _train_il(model: str, steps: int) -> tuple[str, ...]:
    return ("il", "train", "--name", "killed", "--model", model, "--steps", str(steps), "--batch-size", "8", *_CPU)


#: To be ended while it trains; what only needs some model to go on with takes the least.
_LONG, _LEAST = 30, 2

#: Of these, what was measured differs from run to run.
_MEASURED: Final = ("costs", "metrics.jsonl", "checkpoints", "comparisons", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What came of ending a command so often; every end by a signal told of no error."""

    asked: str
    ended: dict[str, int]  # by signal
    at_work: int  # of these, when it had written something
    finished: int  # times that it was done first
    seconds: float


def _shards(place: SmallWorkspace, *settings: str) -> list[str]:
    classes = ", ".join(f'"{name}"' for name in CLASSES)
    manifest = place.folder / "killed.toml"
    manifest.write_text(f'format = "table"\nroot = "{place.corpus}"\nclasses = [{classes}]\nshard_size = 16\n{_IMAGE}')
    return ["shards", "--manifest", str(manifest), *settings, *_at(place, "shards")]


def _pairs(place: SmallWorkspace, *settings: str) -> list[str]:
    manifest = place.folder / "pairs.toml"
    tar = write_tar_of(place.folder / "pairs/a.tar", tangled_pairs(IMAGES))  # some of them straddle the split
    manifest.write_text(f'format = "webdataset"\ntask = "pairs"\nroot = "{tar.parent}"\nshard_size = 16\n{_IMAGE}')
    return ["shards", "--manifest", str(manifest), *settings, *_at(place, "shards")]


def _texts(place: SmallWorkspace) -> list[str]:
    manifest, root = place.folder / "texts.toml", place.folder / "texts"
    write_table(root, IMAGES, test_rows=20)
    columns = '[options]\ntext_column = "text"\nsplit_column = "split"\n'
    manifest.write_text(f'format = "table"\nroot = "{root}"\nshard_size = 16\nholdout = 0.4\n{columns}')
    return ["shards", "--manifest", str(manifest), "--workers", "0", *_at(place, "shards")]


def _at(place: SmallWorkspace, workspace: str = "w") -> tuple[str, str]:
    return "--workspace", str(place.folder / workspace)


def _folds(place: SmallWorkspace) -> list[list[str]]:
    return [
        [*_shards(place, "--folds", "2", "--workers", "0")],
        [*_train_il("bn_cnn", _LONG), "--augmentation", "shift_flip", *_at(place, "shards")],
    ]


#: By name the commands to run, of which the last is the one to end; it has the workspace named last.
COMMANDS: Final[dict[str, Callable[[SmallWorkspace], list[list[str]]]]] = {
    "init": lambda place: [["init", "table", "--output", str(place.folder / "made.toml")]],
    "shards": lambda place: [_shards(place, "--workers", "0")],
    "shards, pairs": lambda place: [_pairs(place, "--workers", "0")],
    "thumbnails of pairs": lambda place: [
        _pairs(place, "--workers", "0"),
        ["thumbnails", "--size", "12", "--workers", "0", *_at(place, "shards")],
    ],
    "tokenize of pairs": lambda place: [_pairs(place, "--workers", "0"), ["tokenize", *_at(place, "shards")]],
    "il train of pairs": lambda place: [
        _pairs(place, "--workers", "0"),
        [*_train_il("tiny_clip", _LONG), *_at(place, "shards")],
    ],
    "il score of pairs": lambda place: [
        _pairs(place, "--workers", "0"),
        [*_train_il("tiny_clip", _LEAST), *_at(place, "shards")],
        ["il", "score", "--name", "killed", "--batch-size", "4", *_CPU, *_at(place, "shards")],
    ],
    "cluster of pairs": lambda place: [
        _pairs(place, "--workers", "0"),
        [*_train_il("tiny_clip", _LEAST), *_at(place, "shards")],
        ["il", "score", "--name", "killed", *_CPU, *_at(place, "shards")],
        ["cluster", "--name", "killed", "--count", "4", *_at(place, "shards")],
    ],
    "train of pairs": lambda place: [
        _pairs(place, "--workers", "0"),
        [*_train_il("tiny_clip", _LEAST), *_at(place, "shards")],
        ["il", "score", "--name", "killed", *_CPU, *_at(place, "shards")],
        [
            *("train", "--name", "killed", "--select", "jest", "--model", "tiny_clip", "--steps", "12"),
            *("--evaluate-every", "4", "--batch-size", "4", "--super-batch-size", "12", *_CPU, *_at(place, "shards")),
        ],
    ],
    "il train of pairs, two processes": lambda place: COMMANDS["il train of pairs"](place),
    "train of pairs, two processes": lambda place: COMMANDS["train of pairs"](place),
    "shards, two workers": lambda place: [_shards(place, "--workers", "2")],
    "index": lambda place: [["index", str(place.folder / "w/shards"), "--workers", "0", *_at(place, "killed")]],
    "index, two workers": lambda place: [
        ["index", str(place.folder / "w/shards"), "--workers", "2", *_at(place, "killed")]
    ],
    "thumbnails": lambda place: [["thumbnails", "--size", "12", "--workers", "0", *_at(place)]],
    "il train": lambda place: [[*_train_il("bn_cnn", _LONG), *_at(place)]],
    "il train, folds": _folds,
    "il score": lambda place: [
        [*_train_il("bn_cnn", _LEAST), *_at(place)],
        ["il", "score", "--name", "killed", "--batch-size", "4", *_CPU, *_at(place)],
    ],
    "shards, texts": lambda place: [_texts(place)],
    "tokenize": lambda place: [_texts(place), ["tokenize", "--workers", "0", *_at(place, "shards")]],
    "il train, texts": lambda place: [
        _texts(place),
        [*_train_il("bag_of_ngrams", _LONG), *_at(place, "shards")],
    ],
    "il score, texts": lambda place: [
        _texts(place),
        [*_train_il("bag_of_ngrams", _LEAST), *_at(place, "shards")],
        ["il", "score", "--name", "killed", "--batch-size", "4", *_CPU, *_at(place, "shards")],
    ],
    "coreset": lambda place: [["coreset", "--name", "killed", "--keep", "0.5", *_at(place)]],
    "train": lambda place: [
        ["train", "--name", "killed", "--steps", "24", "--evaluate-every", "8", *_TRAIN, *_CPU, *_at(place)]
    ],
    "train, texts": lambda place: [
        _texts(place),
        ["il", "train", "--model", "bag_of_ngrams", "--steps", "2", *_CPU, *_at(place, "shards")],
        ["il", "score", *_CPU, *_at(place, "shards")],
        [
            *("train", "--name", "killed", "--model", "tiny_transformer", "--batch-size", "4", "--steps", "18"),
            *("--super-batch-size", "20", "--evaluate-every", "8", *_CPU, *_at(place, "shards")),
        ],
    ],
    "train, thumbnails scored ahead": lambda place: [
        ["thumbnails", "--size", "8", "--format", "raw", "--workers", "0", *_at(place)],
        [
            *("train", "--name", "killed", "--thumbnails", "8-raw", "--score-ahead", "--steps", "24"),
            *("--evaluate-every", "8", *_TRAIN, *_CPU, *_at(place)),
        ],
    ],
    "train --compare": lambda place: [
        ["train", "--compare", "uniform,rho_loss", "--name", "killed", "--steps", "12", *_TRAIN, *_CPU, *_at(place)]
    ],
    "export list": lambda place: [
        ["export", "list", "--max-drop-share", "1", "--output", str(place.folder / "list.csv"), *_at(place)]
    ],
    "export manifest": lambda place: [
        [
            *("export", "manifest", "--clean-list", str(place.folder / "clean.parquet"), "--max-drop-share", "1"),
            *("--output", str(place.folder / "made.toml"), *_at(place)),
        ]
    ],
    "export webdataset": lambda place: [
        [
            *("export", "webdataset", "--sql", "SELECT key FROM samples", "--samples-per-tar", "5"),
            *("--output", str(place.folder / "tars"), *_at(place)),
        ]
    ],
    "export fiftyone": lambda place: [
        ["export", "fiftyone", "--sql", "SELECT key FROM samples", "--output", str(place.folder / "one"), *_at(place)]
    ],
    "report": lambda place: [["report", "--output", str(place.folder / "made.html"), *_at(place)]],
    "query --output": lambda place: [
        ["query", "SELECT * FROM ledger", "--output", str(place.folder / "made.parquet"), *_at(place)]
    ],
    "plan": lambda place: [
        [
            "plan",
            "--model",
            "small_mlp",
            "--seconds",
            "0.1",
            "--batch-size",
            "4",
            "--super-batch-size",
            "20",
            *_CPU,
            *_at(place),
        ]
    ],
    "explain": lambda place: [["explain", "reasons", "--run", "rho_loss", *_at(place)]],
    "status": lambda place: [["status", *_at(place)]],
    "views": lambda place: [["views", *_at(place)]],
}


def sweep(place: SmallWorkspace, asked: str, signals: Sequence[signal.Signals], seed: int = 0) -> Sweep:
    """End a command by these signals, one start each, and let it finish; it must end as if it had never been ended.

    Every file is compared, temporary ones too, but for measured times. A command that is done before the signal comes
    is compared, and begins anew. Of two processes one is ended, at random, and then the other one as torchrun does,
    which may say and leave what it will.

    Raises:
        AssertionError: an end told of an error, or left a temporary folder; the results differ.
    """
    begin, chance = time.monotonic(), random.Random(f"{asked} {seed}")
    place.fresh()
    *first, command = COMMANDS[asked](place)
    for each in first:
        place.cli(*each)
    before, temporary = place.folder.parent / "before", place.folder.parent / "temporary"
    said = place.folder.parent / "said"
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(place.folder, before)
    untouched = digests_of(place.folder)

    def anew() -> None:
        shutil.rmtree(place.folder)
        shutil.copytree(before, place.folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()

    def run(wait: float, number: signal.Signals | None) -> bool:
        """Start it, and end it after these seconds; was it ended before it was done?"""
        if asked.endswith("two processes"):
            return run_job(wait, number)
        process = start(command, said=said, temporary=temporary)
        process.join(wait)
        ended = number is not None and end(process, number)
        process.join(120)
        told = said.read_text(errors="replace")
        # Workers that begin when their parent is killed may find nobody to begin for.
        assert number is signal.SIGKILL or "Traceback" not in told, f"{asked}: {told}"
        assert ended or process.exitcode == 0, f"{asked}: {process.exitcode} {told}"
        left = [path.name for path in temporary.iterdir()]
        assert number is signal.SIGKILL or not left, f"{asked}, ended by {number}, left {left}"
        for name in left:
            shutil.rmtree(temporary / name)
        return ended

    def run_job(wait: float, number: signal.Signals | None) -> bool:
        """The same of two processes."""
        processes = jobs.start(command, 2, temporary)
        processes[0].join(wait)
        if number is not None:
            jobs.kill_one(processes, chance, lambda: True, by=number)
        for process in processes:
            process.join(120)
        codes = [process.exitcode for process in processes]
        ended = codes != [0, 0]
        assert number is not None or not ended, f"{asked}: {codes}"
        for left in temporary.iterdir():
            shutil.rmtree(left)
        return ended

    anew()
    start(["--version"], said=said, temporary=temporary).join()  # the server starts here, not while it is timed
    started = time.monotonic()
    run(120, None)
    seconds = time.monotonic() - started
    expected = digests_of(place.folder)

    def compare() -> None:
        found = digests_of(place.folder)
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        assert not different, f"{asked}: {different}"

    anew()
    ended, at_work, finished = dict.fromkeys((number.name for number in ENDS), 0), 0, 0
    waiting = list(signals)
    while waiting:
        if run(chance.uniform(0, seconds), waiting[-1]):
            ended[waiting.pop().name] += 1
            at_work += digests_of(place.folder) != untouched
        else:
            finished += 1
            compare()
            anew()
    run(120, None)
    compare()
    return Sweep(
        asked=asked, ended=ended, at_work=at_work, finished=finished, seconds=round(time.monotonic() - begin, 1)
    )


def digests_of(folder: Path) -> dict[str, str]:
    """Every file below it, but for what was measured: its name there, and its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(path.relative_to(folder).parts) & set(_MEASURED)
    }
