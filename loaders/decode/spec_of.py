"""A spec out of the JSON values that tell of it."""

from collections.abc import Mapping
from typing import Any

from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.text_spec import TextSpec


def spec_of(values: Mapping[str, Any]) -> ImageSpec | TextSpec:
    """The inverse of `InputSpec.to_dict`.

    Raises:
        ConfigError: no spec is told of so.
    """
    return TextSpec.from_dict(dict(values)) if "tokenizer" in values else ImageSpec.from_dict(dict(values))
