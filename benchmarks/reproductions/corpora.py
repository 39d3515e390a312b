"""The corpora of the reproductions, each from MNIST or CIFAR-10."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from rhostream.pipeline.config.manifest import Manifest, Noise, load_manifest

MANIFESTS = Path(__file__).resolve().parents[2] / "data_manifests"
MNIST_SIDE = 28
RELEVANT = ("automobile", "ship")  # 20% of the classes, which become 80% of the data
RARE = 0.06  # share that is kept of the other classes
CONFUSED = (("4 - four", "9 - nine"), ("3 - three", "5 - five"), ("7 - seven", "1 - one"), ("8 - eight", "2 - two"))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """`of` names what it is made of; `made` is a folder that `make` writes before."""

    of: str
    noise: Noise | None = None
    folds: int = 0
    holdout: float = 0.5
    made: str = ""


CORPORA = {
    "cifar10": Corpus(of="cifar10"),
    "cifar10-noise": Corpus(of="cifar10", noise=Noise(kind="uniform", rate=0.1, seed=1)),
    "cifar10-folds": Corpus(of="cifar10", folds=2),
    "cifar10-relevance": Corpus(of="cifar10", made="relevance"),
    "mnist": Corpus(of="mnist"),
    "mnist-noise": Corpus(of="mnist", noise=Noise(kind="uniform", rate=0.1, seed=1)),
    "mnist-structured": Corpus(of="mnist", noise=Noise(kind="structured", rate=0.5, seed=1, pairs=CONFUSED)),
    "mnist-ambiguous": Corpus(of="mnist", made="ambiguous"),
}


def manifest(name: str, roots: dict[str, str], folder: Path) -> Manifest:
    """The manifest of a corpus, its own files made."""
    corpus = CORPORA[name]
    base = load_manifest(str(MANIFESTS / f"{corpus.of}.toml"), {"root": roots[corpus.of]})
    if corpus.of == "cifar10" or corpus.made:
        root, label = Path(roots["cifar10"]), "class"
        if corpus.made:
            root, label = folder / corpus.made, "label"
            {"relevance": _relevance, "ambiguous": _ambiguous}[corpus.made](Path(roots[corpus.of]), root)
        classes = tuple(map(str, range(10))) if corpus.of == "mnist" else ()
        options = {"split_column": "split", "label_column": label}
        base = replace(base, format="table", root=str(root), classes=classes, options=options)
    # Exact thumbnails spare decoding.
    return replace(
        base,
        holdout=0.0 if corpus.folds else corpus.holdout,
        folds=corpus.folds,
        noise=corpus.noise,
        thumbnails=base.image["size"],
        thumbnail_format="raw",
    )


def _relevance(cifar10: Path, folder: Path) -> None:
    """All images of two classes, and 6% of the others: 80% of the data are of 20% of the classes. Test as it is."""
    random = np.random.default_rng(1)
    with (cifar10 / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for row in rows:
        common = row["class"] in RELEVANT
        if row["split"] == "test" or random.random() < (1.0 if common else RARE):
            kept.append([row["path"], row["class"], row["split"], "common" if common else "rare"])
    if not (folder / "images").exists():
        (folder / "images").symlink_to(cifar10.absolute() / "images")
    _write(folder, ["path", "label", "split", "relevance"], kept)


def _ambiguous(mnist: Path, folder: Path) -> None:
    """MNIST, a tenth of whose training images are halfway between two digits and carry the label of either."""
    import torchvision

    if (folder / "labels.csv").exists():
        return
    random = np.random.default_rng(1)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for split in ("train", "test"):
        of = torchvision.datasets.MNIST(str(mnist), train=split == "train")
        pixels, labels = of.data.numpy(), of.targets.numpy()
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            mixed = split == "train" and random.random() < 0.1
            if mixed:
                other = random.choice(np.flatnonzero(labels != label))
                image = ((image.astype(np.uint16) + pixels[other]) // 2).astype(np.uint8)
                label = labels[other] if random.random() < 0.5 else label
            path = f"images/{split}-{number}.png"
            Image.fromarray(image).save(folder / path)
            rows.append([path, int(label), split, int(mixed)])
    _write(folder, ["path", "label", "split", "ambiguous"], rows)


def _write(folder: Path, header: list[str], rows: list[list[object]]) -> None:
    unfinished = folder / "labels.csv.unfinished"
    with unfinished.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    unfinished.rename(folder / "labels.csv")
