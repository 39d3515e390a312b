"""Where reproductions run: the settings of a machine, corpora with their IL tables, and runs in several processes."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import corpora
import torch

from rhostream.loaders import Workspace
from rhostream.pipeline.comparison.comparison import compare
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails

CORE_SET = "svp"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a machine can bear.

    Attributes:
        model, steps, augmentation: of the targets on CIFAR-10, and the gradient steps they take.
        targets: accuracies on CIFAR-10, clean and with noise.
        architectures: further targets that one IL table serves (Fig. 2).
    """

    name: str
    device: str
    threads: int
    model: str
    steps: int
    augmentation: str
    targets: dict[str, tuple[float, ...]]
    architectures: tuple[str, ...]
    evaluate_every: int
    evaluate_at_most: int


REDUCED = Setting(
    name="reduced",
    device="cpu",
    threads=1,
    model="bn_cnn",
    steps=600,
    augmentation="none",
    targets={"clean": (0.45, 0.55), "noise": (0.40, 0.50)},
    architectures=("small_cnn", "mlp"),
    evaluate_every=25,
    evaluate_at_most=2000,
)
#: The paper's: ResNet-18 with a 3x3 stem, crop and flip. Its runs are longer: `--steps` shortens these.
FULL = Setting(
    name="full",
    device="cuda",
    threads=1,
    model="resnet18_cifar",
    steps=3000,
    augmentation="shift_flip",
    targets={"clean": (0.70, 0.75, 0.80), "noise": (0.65, 0.70, 0.75)},
    architectures=("bn_cnn", "mobilenet_v2", "vgg11_bn"),
    evaluate_every=100,
    evaluate_at_most=4000,
)
SETTINGS = {setting.name: setting for setting in (REDUCED, FULL)}


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs that are compared: variants on one corpus, as `rho train --compare` takes them.

    Attributes:
        corpus: a key of `corpora.CORPORA`.
        settings: of `TrainConfig`, beside those of the setting.
        targets: accuracies; shares of the weakest run's best where empty.
        core_set: a tenth of the corpus is chosen by SVP for variants with "core_set=svp".
    """

    name: str
    corpus: str
    variants: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    targets: tuple[float, ...] = ()
    core_set: bool = False


@dataclass(frozen=True)
class Lab:
    """A folder of workspaces, and the machine.

    Attributes:
        roots: "mnist" and "cifar10": see run.py.
        jobs: processes that train at a time.
    """

    folder: Path
    roots: dict[str, str]
    setting: Setting
    seeds: tuple[int, ...]
    jobs: int

    @property
    def label(self) -> str:
        """The setting; with another number of steps than its own, that too."""
        usual = SETTINGS[self.setting.name].steps == self.setting.steps
        return self.setting.name if usual else f"{self.setting.name}-{self.setting.steps}"

    def workspace(self, corpus: str) -> Workspace:
        return Workspace(self.folder / self.label / corpus)

    def config(self, study: Study) -> TrainConfig:
        setting = self.setting
        base: dict[str, Any] = {"model": "mlp", "steps": 500, "evaluate_every": 10, "evaluate_at_most": 3000}
        if corpora.CORPORA[study.corpus].of == "cifar10":
            base = {
                "model": setting.model,
                "steps": setting.steps,
                "augmentation": setting.augmentation,
                "evaluate_every": setting.evaluate_every,
                "evaluate_at_most": setting.evaluate_at_most,
            }
        return TrainConfig(
            name=re.sub(r"\W+", "-", study.name),
            schedule="constant",
            average_weights=False,
            device=setting.device,
            threads=setting.threads,
            workers="0",
            tensorboard=False,
            **(base | study.settings),
        )

    def prepare(self, studies: Sequence[Study]) -> None:
        """Shards, IL models, IL tables and core sets; what is there already is taken up."""
        chosen = {study.corpus for study in studies if study.core_set}
        jobs = [
            (self.workspace(name), corpora.manifest(name, self.roots, self.folder), self.setting, name in chosen)
            for name in sorted({study.corpus for study in studies})
        ]
        for _ in self._each(_prepare, jobs):
            pass

    def run(self, studies: Sequence[Study]) -> Iterator[tuple[Study, dict[str, Any]]]:
        """All runs of all studies, and of each study, once it is complete, what `Comparison.to_dict` gives."""
        self.prepare(studies)
        jobs = [
            (self.workspace(study.corpus), self.config(study), study, (variant,), (seed,))
            for study in studies
            for seed in self.seeds
            for variant in sorted(study.variants, key=lambda variant: variant.startswith("uniform"))
        ]  # uniform sampling, which scores nothing, last: the dearest runs begin first
        left = Counter(job[2].name for job in jobs)
        for done, (job, result) in enumerate(self._each(_compare, jobs), 1):
            (outcome,) = result["variants"]
            accuracy = outcome["final_accuracy"]["median"]
            print(f"{done} of {len(jobs)}: {outcome['runs'][0]['run']}, {accuracy:.1%} in the end", flush=True)
            study = job[2]
            left[study.name] -= 1
            if not left[study.name]:
                whole = (self.workspace(study.corpus), self.config(study), study, study.variants, self.seeds)
                yield study, _compare(*whole)

    def _each(self, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Each job and its result, as they come."""
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"), initializer=_few_threads) as pool:
            futures = {pool.submit(work, *job): job for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()


def _few_threads() -> None:
    torch.set_num_threads(1)


def _prepare(workspace: Workspace, manifest: Manifest, setting: Setting, core_set: bool) -> None:
    write_shards(workspace, manifest, workers=0)
    spec = ThumbnailsConfig(size=manifest.thumbnails, format=manifest.thumbnail_format, workers=0)
    write_thumbnails(workspace, spec)
    metadata = train_il(
        workspace,
        ILTrainConfig(
            model="small_cnn",
            device=setting.device,
            threads=setting.threads,
        ),
    ).metadata
    score_il(workspace, ILScoreConfig(name=metadata.name, device=setting.device, threads=setting.threads))
    if core_set:
        write_core_set(workspace, CoreSetConfig(name=CORE_SET, keep=0.1))


def _compare(
    workspace: Workspace, config: TrainConfig, study: Study, variants: tuple[str, ...], seeds: tuple[int, ...]
) -> dict[str, Any]:
    return compare(workspace, config, variants, seeds=seeds, targets=study.targets).to_dict()


def merged(studies: Iterable[Study]) -> list[Study]:
    """Studies of one name as one: recipes share runs."""
    found: dict[str, Study] = {}
    for study in studies:
        known = found.setdefault(study.name, study)
        variants = tuple(dict.fromkeys([*known.variants, *study.variants]))
        found[study.name] = replace(known, variants=variants, core_set=known.core_set or study.core_set)
    return list(found.values())


def longer(setting: Setting, steps: int | None) -> Setting:
    return setting if steps is None else replace(setting, steps=steps)
