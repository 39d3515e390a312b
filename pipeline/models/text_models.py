"""Small classifiers of texts that need no download, and Hugging Face's from a local folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.extras import install_command
from rhostream.loaders.decode import TextSpec
from rhostream.loaders.storage import UnreadableError, decode_card
from rhostream.pipeline.config import TEXT_IL_MODEL, TEXT_MODEL

TRANSFORMERS: Final = "transformers/"

_BUCKETS: Final = 1 << 15  # of n-grams
_PRIMES: Final = (1_000_003, 8_191)


class BagOfNgrams(nn.Module):
    """The mean of vectors of tokens, and of their pairs and triples by hash (fastText: Joulin et al., 2017).

    Args:
        vocabulary: number of token ids.
    """

    def __init__(self, vocabulary: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.ngrams = nn.Embedding(_BUCKETS, width)
        self.hidden = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, num_classes)
        for embedding in (self.tokens, self.ngrams):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (n, classes) of int64 (n, tokens)."""
        there = attention_mask.to(self.tokens.weight.dtype)
        total, count = (self.tokens(input_ids) * there[..., None]).sum(1), there.sum(1)
        ids, ends = input_ids, there
        for prime in _PRIMES:
            if input_ids.shape[1] < 2 or ids.shape[1] < 2:
                break
            # The n-gram that begins at each place, where all of its tokens are there.
            following = input_ids[:, -(ids.shape[1] - 1) :]
            ids, ends = (ids[:, :-1] * prime + following) % _BUCKETS, there[:, -(ids.shape[1] - 1) :]
            total, count = total + (self.ngrams(ids) * ends[..., None]).sum(1), count + ends.sum(1)
        mean = total / count.clamp(min=1)[:, None]
        logits: Tensor = self.head(torch.relu(self.hidden(mean)))
        return logits


class TinyTransformer(nn.Module):
    """Two pre-norm layers (Vaswani et al., 2017) over learned positions, and the mean of the tokens.

    Args:
        vocabulary: number of token ids.
        length: tokens of a text, at most.
    """

    def __init__(self, vocabulary: int, length: int, num_classes: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (n, classes) of int64 (n, tokens)."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.dropout(self.tokens(input_ids) + self.positions(places))
        there = attention_mask.bool()
        for layer in self.layers:
            hidden = layer(hidden, there)
        logits: Tensor = self.head(_mean(self.norm(hidden), attention_mask))
        return logits


class SentenceClassifier(nn.Module):
    """An encoder of sentences (Reimers and Gurevych, 2019) under a linear head: its own pooling, as it was trained.

    The pooler of a pretrained BERT, which a sequence classifier puts before its head, was left as it was when the
    encoder learnt to tell sentences by another pooling. A normalization after the pooling is left out, which would
    only make the inputs of a new head small.

    Args:
        encoder: gives `last_hidden_state`, (n, tokens, width).
        pooling: a key of `POOLINGS`.
    """

    def __init__(self, encoder: nn.Module, pooling: str, width: int, num_classes: int) -> None:
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # type: ignore[assignment]  # unused parameters would stop training by processes
        self.encoder, self._pool = encoder, POOLINGS[pooling]
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(width, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (n, classes) of int64 (n, tokens)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = self.head(self.dropout(self._pool(hidden, attention_mask)))
        return logits


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[:, 0]


#: Of what an encoder of sentences makes of tokens, by the names of sentence-transformers.
POOLINGS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "mean": _mean,
    "cls": _first,
}
_POOLING_KEYS: Final = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        """float (n, tokens, width); `there` is bool (n, tokens)."""
        n, tokens, width = hidden.shape
        parts = self.queries_keys_values(self.attention_norm(hidden)).view(n, tokens, 3, self.heads, -1)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        likeness = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
        # Of a text without tokens all are looked at, as a softmax over nothing is not a number.
        looked_at = there | ~there.any(1, keepdim=True)
        shares = likeness.masked_fill(~looked_at[:, None, None, :], float("-inf")).softmax(-1)
        seen = (self.dropout(shares) @ values).transpose(1, 2).reshape(n, tokens, width)
        hidden = hidden + self.dropout(self.out(seen))
        out: Tensor = hidden + self.dropout(self.feed_forward(self.norm(hidden)))
        return out


def build_text_model(name: str, num_classes: int, spec: TextSpec) -> nn.Module:
    """A classifier that takes `input_ids` and `attention_mask`, see `build_model`; initialized at random, on the CPU.

    Raises:
        ConfigError: an unknown name, a folder that holds no such model, or a tokenizer that is not the model's.
    """
    if name.startswith(TRANSFORMERS):
        return _of_transformers(Path(name.removeprefix(TRANSFORMERS)), num_classes, spec)
    if name not in _BUILT_IN:
        raise ConfigError(
            f"model {name!r} takes no texts, which the corpus has: choose {', '.join(_BUILT_IN)}, or "
            f"{TRANSFORMERS}FOLDER"
        )
    if not spec.vocabulary:
        raise ConfigError(f"model {name!r} needs the number of token ids: give TextSpec(…, vocabulary=…)")
    return _BUILT_IN[name](num_classes, spec)


_BUILT_IN: Final[dict[str, Callable[[int, TextSpec], nn.Module]]] = {
    TEXT_IL_MODEL: lambda num_classes, spec: BagOfNgrams(spec.vocabulary, num_classes),
    TEXT_MODEL: lambda num_classes, spec: TinyTransformer(spec.vocabulary, spec.length, num_classes),
}


def _of_transformers(folder: Path, num_classes: int, spec: TextSpec) -> nn.Module:
    """The classifier of a local folder: `config.json` and, where there are weights, `model.safetensors`."""
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model {TRANSFORMERS}{folder}: the folder has no config.json; name a local folder of a Hugging Face model "
            "(nothing is ever downloaded)"
        )
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"model {TRANSFORMERS}{folder}: the package transformers is not installed; run "
            f"`{install_command('transformers')}`"
        ) from error
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, num_labels=num_classes, **options)
        pooling = None if config.is_encoder_decoder else _pooling_of(folder)
        kind = transformers.AutoModel if pooling else transformers.AutoModelForSequenceClassification
        if (folder / "model.safetensors").is_file():
            model = kind.from_pretrained(
                folder, config=config, use_safetensors=True, ignore_mismatched_sizes=True, **options
            )
        else:
            model = kind.from_config(config)
        built: nn.Module = SentenceClassifier(model, pooling, config.hidden_size, num_classes) if pooling else model
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model {TRANSFORMERS}{folder} is no sequence classifier that opens: {reason}") from error
    known = int(getattr(config, "vocab_size", 0))
    if known and spec.vocabulary > known:
        raise ConfigError(
            f"model {TRANSFORMERS}{folder} knows {known} token ids, the tokenizer gives {spec.vocabulary}: give the "
            f"model's own, --tokenizer {folder}"
        )
    longest = int(getattr(config, "max_position_embeddings", 0))
    if 0 < longest < spec.length:
        raise ConfigError(
            f"model {TRANSFORMERS}{folder} takes {longest} tokens, the spec gives up to {spec.length}: give "
            f"--text-length {longest}"
        )
    return built.train()


def _pooling_of(folder: Path) -> str | None:
    """The pooling that an encoder of sentences was saved with, where it is one of `POOLINGS`."""
    card = folder / "1_Pooling" / "config.json"
    if not card.is_file():
        return None
    try:
        found = decode_card(card.read_bytes())
    except UnreadableError as error:
        raise ValueError(f"{card.relative_to(folder)} {error.cause}; copy the folder again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{card.relative_to(folder)} holds no object; copy the folder again")
    modes = {key for key, value in found.items() if key.startswith("pooling_mode_") and value is True}
    return next((name for name, key in _POOLING_KEYS.items() if modes == {key}), None)
