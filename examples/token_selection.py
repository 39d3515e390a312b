"""RHO-1 from scratch: a reference model learns from the holdout, and tells which tokens of the rest to train on.

python examples/token_selection.py WORKSPACE [--steps N] [--share X]     (a workspace of texts: `rho shards`)
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=200, help="of each model")
arguments.add_argument("--share", type=float, default=0.6, help="of the tokens that are trained on")
options = arguments.parse_args()
corpus = rho.CorpusMetadata.read(rho.Workspace(options.workspace))


def byte_ids(texts: list[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


spec = rho.TextSpec(tokenizer=byte_ids, vocabulary=256, length=96)


class CausalTransformer(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(spec.vocabulary, width), nn.Embedding(spec.length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, spec.vocabulary)

    def forward(self, input_ids: Tensor) -> Tensor:
        length = input_ids.shape[1]
        hidden = self.tokens(input_ids) + self.positions(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        logits: Tensor = self.head(self.layers(hidden, mask=mask, is_causal=True))
        return logits


def batches(split: str, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and labels of one pass over a split, padding ignored; texts are sampled uniformly, tokens are selected."""
    stream = rho.CandidateStream(options.workspace, shards=corpus.split(split), spec=spec, super_batch_size=32)
    for batch in rho.OnlineSelector(model, batch_size=32, select="uniform")(stream):
        ids, mask = batch.tokens["input_ids"], batch.tokens["attention_mask"]
        yield ids, ids.masked_fill(mask == 0, -100)


def trained(split: str, reference: nn.Module | None = None) -> nn.Module:
    """A model that is trained on a split: on all tokens, or on those that a reference model singles out."""
    torch.manual_seed(0)
    model = CausalTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    step = 0
    while step < options.steps:
        for ids, labels in batches(split, model):
            logits = model(ids)
            if reference is None:
                loss = rho.token_losses(logits, labels).sum() / (labels[:, 1:] != -100).sum()
            else:
                with torch.no_grad():
                    expected = rho.token_losses(reference(ids), labels)
                loss = rho.selective_token_loss(logits, labels, expected, share=options.share)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step == options.steps:
                break
    return model.eval()


@torch.no_grad()
def test_loss(model: nn.Module) -> float:
    """Nats a token of the test split."""
    total, count = 0.0, 0
    for ids, labels in batches("test", model):
        total += float(rho.token_losses(model(ids), labels).sum())
        count += int((labels[:, 1:] != -100).sum())
    return total / count


reference = trained("holdout")
models = {"reference, on the holdout": reference, "all tokens": trained("train")}
models[f"{options.share:.0%} of the tokens"] = trained("train", reference)
losses = {name: test_loss(model) for name, model in models.items()}
for name, loss in losses.items():
    print(f"{name}: {loss:.3f} nats a token of the test split")
