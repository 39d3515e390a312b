"""Table 1: how much of the ranking survives each approximation of the score (arXiv 2206.07137, section 3).

The most faithful score of a candidate is L[y | x; D_t] - L[y | x; D_ho, D_t], both by ensembles trained to convergence
on what has been selected so far (D_t), the second on the holdout as well. Each approximation is compared with it by
Spearman's rank correlation, over candidates that no model has seen.
"""

import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from recipes import Row
from torch import Tensor, nn

TITLE = "Table 1: rank correlation of the approximations with the most faithful score"
PAPER = "No ensemble 0.75, not converged 0.76, IL model not updated 0.63, small IL model 0.51; each with those before."
ENSEMBLE, HOLDOUT, CANDIDATES, EPOCHS = 5, 3000, 2000, 15
SELECTED = (640, 1920, 3840)  # sizes of D_t
HIDDEN, SMALL = 512, 64
BATCH = 32


def rows(mnist: str, seeds: Sequence[int], device: torch.device) -> list[Row]:
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for selected in SELECTED:
            for name, value in _correlations(mnist, seed, selected, device).items():
                found.setdefault(name, []).append(value)
    return [
        {
            "approximation": name,
            "rank correlation": round(statistics.mean(values), 2),
            "lowest": round(min(values), 2),
            "highest": round(max(values), 2),
        }
        for name, values in found.items()
    ]


def _correlations(mnist: str, seed: int, selected: int, device: torch.device) -> dict[str, float]:
    """By approximation: its correlation with the most faithful score, when `selected` points have been trained on."""
    import torchvision

    data = torchvision.datasets.MNIST(mnist, train=True)
    order = torch.randperm(len(data.targets), generator=torch.Generator().manual_seed(seed))
    images = ((data.data[order].float() / 255 - 0.1307) / 0.3081).flatten(1).to(device)
    labels = data.targets[order].to(device)
    parts = torch.split(
        torch.arange(len(order)), [HOLDOUT, selected, CANDIDATES, len(order) - HOLDOUT - selected - CANDIDATES]
    )
    holdout, chosen, candidates = parts[:3]
    both = torch.cat([holdout, chosen])

    def loss(models: list[nn.Module]) -> Tensor:
        """Of the candidates, under the mean of the models' predictions."""
        with torch.inference_mode():
            logs = torch.stack([F.log_softmax(model(images[candidates]), 1) for model in models])
        mean = torch.logsumexp(logs, 0) - torch.log(torch.tensor(float(len(models))))
        return F.nll_loss(mean, labels[candidates], reduction="none")

    def trained(rows: Tensor, number: int, *, hidden: int = HIDDEN, epochs: int = EPOCHS) -> nn.Module:
        return _fit(_mlp(hidden, seed * 100 + number, device), images[rows], labels[rows], epochs, number)

    target = [trained(chosen, number) for number in range(ENSEMBLE)]
    joint = [trained(both, ENSEMBLE + number) for number in range(ENSEMBLE)]
    faithful = loss(target) - loss(joint)
    # One pass over D_t, as online training makes it; the IL model goes on from the holdout.
    online = loss([trained(chosen, 20, epochs=1)])
    on_holdout = trained(holdout, 21)
    fixed = loss([on_holdout])
    small = loss([trained(holdout, 22, hidden=SMALL)])
    updated = loss([_fit(on_holdout, images[chosen], labels[chosen], 1, 23, rate=1e-4)])
    approximations = {
        "single models": loss(target[:1]) - loss(joint[:1]),
        "not converged": online - updated,
        "IL model not updated": online - fixed,
        "small IL model": online - small,
    }
    return {name: _spearman(faithful, score) for name, score in approximations.items()}


def _mlp(hidden: int, seed: int, device: torch.device) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )
    return layers.to(device)


def _fit(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int, rate: float = 1e-3) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model


def _spearman(first: Tensor, second: Tensor) -> float:
    ranks = torch.stack([first.argsort().argsort(), second.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])
