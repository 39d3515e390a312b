"""DnC (divide and contrast, arXiv 2105.08054) on images alone: SimCLR on all, then on clusters of like images, in one.

python examples/divide_and_contrast.py WORKSPACE [--steps N] [--clusters K] [--label COLUMN]

A base model learns from all images; its embeddings are clustered; an expert goes on from it in each cluster, where the
other images of a batch are harder to tell apart; a student learns to predict what the base model makes of every image,
and the expert what it makes of those of its cluster. Beside it SimCLR on all images for as many steps. How good the
features are, a linear probe tells: it learns the values of a column of the holdout's samples, and is measured on those
of the test split. The workspace is one of image-text pairs, whose texts are not read; scikit-learn is needed.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import rhostream as rho
from rhostream.loaders.index import read_shard_rows
from rhostream.pipeline.config import ClusterConfig
from rhostream.pipeline.il import write_clusters

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=600, help="of SimCLR; DnC shares as many out")
arguments.add_argument("--clusters", type=int, default=5)
arguments.add_argument("--batch-size", type=int, default=128)
arguments.add_argument("--label", default="type", help="column that the probe predicts")
arguments.add_argument("--seed", type=int, default=0)
arguments.add_argument("--output", type=Path, help="where to write the figures, JSON")
options = arguments.parse_args()

WIDTH, TEMPERATURE, LEARNING_RATE = 128, 0.2, 1e-3
workspace = rho.Workspace(options.workspace)
corpus = rho.CorpusMetadata.read(workspace)
spec = corpus.image_spec()


def encoder() -> nn.Sequential:
    """Images to features (n, WIDTH): what a linear probe sees."""

    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [*block(spec.channels, 32, 2), *block(32, 64, 2), *block(64, WIDTH, 1), *block(WIDTH, WIDTH, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def view(images: Tensor) -> Tensor:
    """Each image cropped at random, maybe mirrored, its brightness, contrast and color moved."""
    n = len(images)
    scale, flip = torch.empty(n).uniform_(0.45, 1.0), torch.randint(0, 2, (n,)) * 2.0 - 1.0
    shift = (2 * torch.rand(n, 2) - 1) * (1 - scale)[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * flip, scale, shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    cropped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gray = torch.where(torch.rand(n, 1, 1, 1) < 0.2, cropped.mean(1, keepdim=True), cropped)
    gain, tint = 1 + 0.4 * torch.randn(n, 1, 1, 1), 0.3 * torch.randn(n, images.shape[1], 1, 1)
    return gain * gray + tint


def contrastive_loss(model: nn.Module, images: Tensor) -> Tensor:
    """NT-Xent (SimCLR: Chen et al., 2020): each view's other view, among all other views of the batch; nats."""
    n = len(images)
    embeddings = F.normalize(model(torch.cat([view(images), view(images)])), dim=1)
    logits = (embeddings @ embeddings.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(2 * n).roll(n))


def batches(steps: int, **settings: Any) -> Iterator[rho.SuperBatch]:
    """So many batches of the training images, normalized; with clusters each is of one, but for an epoch's rest."""
    stream = rho.CandidateStream(
        workspace, spec=spec, super_batch_size=options.batch_size, seed=options.seed, **settings
    )
    step = 0
    while step < steps:
        for batch in stream:
            if stream.order.within_clusters and len(np.unique(batch.extra["cluster"])) > 1:
                continue
            yield batch.normalized()
            step += 1
            if step == steps:
                break


def trained(steps: int, parameters: Any, loss_of: Callable[[rho.SuperBatch], Tensor], **settings: Any) -> None:
    """Take so many steps on these parameters, the learning rate falling to 0 as a cosine."""
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, batch in enumerate(batches(steps, **settings), 1):
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()  # experts of other clusters have no gradient, and stay as they are
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


def contrasted(steps: int) -> nn.Sequential:
    """An encoder that SimCLR trains on all images, and its head."""
    torch.manual_seed(options.seed)
    model = nn.Sequential(encoder(), head())
    trained(steps, model.parameters(), lambda batch: contrastive_loss(model, batch.images))
    return model.eval()


@torch.no_grad()
def features(model: nn.Module, samples: rho.EvaluationStream) -> Tensor:
    """float32 (n, WIDTH), of these images in their order."""
    loader = torch.utils.data.DataLoader(samples, batch_size=500)
    return torch.cat([model(images) for images, _ in loader])


def cluster(base: nn.Module) -> tuple[int, ...]:
    """Write clusters "dnc" of what the base model makes of the training images; how many fell into each."""
    with tempfile.TemporaryDirectory() as folder:
        for shard in corpus.split("train"):
            keys = read_shard_rows(workspace, shard).keys
            found = features(base, rho.EvaluationStream(workspace, spec=spec, shards=[shard]))
            pq.write_table(pa.table({"key": keys, "embedding": list(found.numpy())}), f"{folder}/{shard.name}.parquet")
        config = ClusterConfig(name="dnc", count=options.clusters, seed=options.seed, embeddings=folder)
        return write_clusters(workspace, config, overwrite=True).sizes


def divided_and_contrasted(steps: int) -> tuple[nn.Module, dict[str, Any]]:
    """A student of a base model and its experts, which have shared the steps out, and what is to be told of them."""
    base_steps, expert_steps = round(0.4 * steps), round(0.35 * steps)
    base = contrasted(base_steps)
    sizes = cluster(base[0])
    # Each begins where the base model has ended, as it gets few steps: those that draw its cluster.
    experts = nn.ModuleList([copy.deepcopy(base).train() for _ in sizes])
    order = rho.Order(block_shards=64, within_clusters=True)

    def of_expert(batch: rho.SuperBatch) -> Tensor:
        return contrastive_loss(experts[int(batch.extra["cluster"][0])], batch.images)

    trained(expert_steps, experts.parameters(), of_expert, clusters="dnc", order=order)
    experts.eval()
    torch.manual_seed(options.seed)
    student, heads = encoder(), nn.ModuleList([head() for _ in range(1 + len(sizes))])

    def of_student(batch: rho.SuperBatch) -> Tensor:
        """Squared distances of what the heads predict and what the base model, and the experts, make of a view."""
        images, clusters = view(batch.images), torch.from_numpy(batch.extra["cluster"].astype(np.int64))
        own, loss = student(images), torch.zeros(())
        teachers = [(base[0], torch.arange(len(images)))]
        teachers += [(expert[0], (clusters == at).nonzero()[:, 0]) for at, expert in enumerate(experts)]  # type: ignore[index]
        for (teacher, rows), predict in zip(teachers, heads, strict=True):
            if len(rows):
                with torch.no_grad():
                    target = F.normalize(teacher(images[rows]), dim=1)
                predicted = F.normalize(predict(own[rows]), dim=1)
                loss = loss + (predicted - target).square().sum() / len(images)
        return loss

    parameters = [*student.parameters(), *heads.parameters()]
    trained(steps - base_steps - expert_steps, parameters, of_student, clusters="dnc")
    return student.eval(), {"base": base_steps, "experts": expert_steps, "cluster_sizes": sizes}


def probed(model: nn.Module) -> float:
    """Accuracy of a linear probe: of the test images with a label that the holdout has, too."""
    found, labels = [], []
    for split in ("holdout", "test"):
        samples = rho.EvaluationStream(workspace, split, spec=spec, extra=(options.label,))
        found.append(features(model, samples).numpy())
        labels.append(np.array([str(label) for label in samples.extra[options.label]]))
    known = np.isin(labels[1], labels[0])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(found[0], labels[0])
    return float(probe.score(found[1][known], labels[1][known]))


def main() -> None:
    torch.manual_seed(options.seed)
    untrained = probed(encoder().eval())
    times = [time.process_time()]
    plain = contrasted(options.steps)[0]
    times.append(time.process_time())
    student, told = divided_and_contrasted(options.steps)
    times.append(time.process_time())
    accuracy = {"untrained": untrained, "SimCLR": probed(plain), "DnC": probed(student)}
    seconds = {"SimCLR": times[1] - times[0], "DnC": times[2] - times[1]}
    for name, share in accuracy.items():
        print(f"{name}: linear probe {share:.1%}, {seconds.get(name, 0.0):.0f} CPU-seconds")
    if options.output is not None:
        facts = {"steps": options.steps, "batch_size": options.batch_size, "seed": options.seed, **told}
        options.output.write_text(json.dumps({**facts, "accuracy": accuracy, "cpu_seconds": seconds}, indent=1) + "\n")


main()
