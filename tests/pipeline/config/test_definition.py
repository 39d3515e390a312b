"""Definitions of settings: their checks, their texts, and that they agree with what implements them."""

import subprocess
import sys
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import pytest

from rhostream import ConfigError
from rhostream.loaders.decode.augmentation import AUGMENTATIONS
from rhostream.loaders.decode.rgb import MAX_PIXELS
from rhostream.loaders.index.thumbnails import ThumbnailFormat
from rhostream.pipeline.config import (
    CleanListConfig,
    CoreSetConfig,
    ILScoreConfig,
    ILTrainConfig,
    Manifest,
    Noise,
    StageConfig,
    ThumbnailsConfig,
    TrainConfig,
    WebDatasetOptions,
    choices,
    definitions,
    setting,
    settings_table,
)
from rhostream.pipeline.models.networks import BUILT_IN
from rhostream.selection.policies.selection_config import RULES
from rhostream.selection.scoring.functions import selection_functions
from rhostream.selection.scoring.scorer import BatchNormPolicy

KINDS = (
    CleanListConfig,
    CoreSetConfig,
    ILScoreConfig,
    ILTrainConfig,
    Manifest,
    Noise,
    ThumbnailsConfig,
    TrainConfig,
    WebDatasetOptions,
)


@dataclass(frozen=True, kw_only=True)
class Oven(StageConfig):
    """Settings of an oven."""

    STAGE = "oven "

    heat: float = setting(180.0, above=0, maximum=300, metavar="C", group="Baking", help="Its | heat.")
    trays: int = setting(1, minimum=1, metavar="N", group="Baking", help="Trays in it.")
    fan: bool = setting(False, help="Blow.")
    mode: Literal["bake", "grill"] = setting("bake", help="How.")
    name: str = setting("", pattern="[a-z]*", form="use small letters", unset="none", help="Of the oven.")
    tags: tuple[str, ...] = setting((), commas=True, help="Words.")
    extra: dict[str, Any] = setting({}, metavar="NAME=VALUE", help="More.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heat": 0.0}, "oven heat 0.0: give a number above 0 and at most 300"),
        ({"heat": float("nan")}, "oven heat nan: give a number"),
        ({"trays": 0}, "oven trays 0: give 1 or more"),
        ({"trays": "two"}, "oven trays = 'two' is not a whole number"),
        ({"trays": True}, "oven trays = True is not a whole number"),
        ({"fan": 1}, "oven fan = 1 is not true or false"),
        ({"mode": "fry"}, "oven mode = 'fry' is not one of bake, grill"),
        ({"name": "A"}, "oven name 'A': use small letters"),
        ({"tags": "a"}, "oven tags = 'a' is not"),
    ],
)
def test_a_value_that_a_setting_does_not_allow_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Oven(**values)
    assert str(caught.value).startswith(message)


def test_whole_numbers_and_lists_become_the_settings_types() -> None:
    oven = Oven(heat=200, tags=["a", "b"])  # type: ignore[arg-type]
    assert (oven.heat, type(oven.heat), oven.tags) == (200.0, float, ("a", "b"))


def test_objects_share_no_default_mapping() -> None:
    Oven().extra["a"] = 1
    assert Oven().extra == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("heat", "2e2", 200.0),
        ("trays", "3", 3),
        ("fan", "true", True),
        ("name", "x", "x"),
        ("tags", "a, b", ("a", "b")),
    ],
)
def test_texts_are_read_as_the_settings_types(name: str, text: str, value: Any) -> None:
    assert definitions(Oven)[name].read(text) == value


def test_a_mappings_item_is_a_name_and_a_value() -> None:
    read = definitions(Oven)["extra"].read_item
    assert [read("a=[1, 2.5]"), read("b=true"), read("c=word")] == [("a", [1, 2.5]), ("b", True), ("c", "word")]
    with pytest.raises(ConfigError, match="'a': give NAME=VALUE"):
        read("a")
    assert definitions(WebDatasetOptions)["extra"].read_item("caption") == ("caption", "string")


def test_the_table_groups_one_row_for_each_setting() -> None:
    table = settings_table(Oven)
    assert "### Baking\n" in table
    row = "| `--heat` | `RHO_HEAT` | a number above 0 and at most 300 | 180 | Its \\| heat. |"
    assert row in table.splitlines()
    assert "| `--mode` | `RHO_MODE` | `bake` · `grill` | bake | How. |" in table.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_says_what_it_is(kind: type[Any]) -> None:
    known, table = definitions(kind), settings_table(kind)
    assert set(known) == {field.name for field in fields(kind)}
    for each in known.values():
        assert each.help.endswith("."), each.name
        assert each.hidden or each.is_switch or each.metavar or each.choices, each.name
        assert f"| `{each.name if each.hidden else each.flag}` |" in table


def test_choices_are_those_of_what_implements_them() -> None:
    assert get_args(choices.Augmentation) == AUGMENTATIONS
    assert get_args(choices.RuleName) == RULES
    assert get_args(choices.BatchNormPolicy) == get_args(BatchNormPolicy)
    assert get_args(choices.ThumbnailFormat) == get_args(ThumbnailFormat)
    assert tuple(BUILT_IN) == choices.BUILT_IN_MODELS
    assert choices.MAX_PIXELS == MAX_PIXELS


@pytest.mark.slow
def test_the_selection_functions_in_the_help_are_the_registered_ones() -> None:
    # In a process of its own: other tests register functions.
    code = (
        "from rhostream.pipeline.config import SELECTION_FUNCTIONS; "
        "from rhostream.selection.scoring import selection_functions; "
        "assert SELECTION_FUNCTIONS == selection_functions(), selection_functions()"
    )
    assert set(choices.SELECTION_FUNCTIONS) <= set(selection_functions())
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_import_nothing_heavy() -> None:
    code = (
        "import sys; from rhostream.pipeline.config import *; "
        "heavy = {'torch', 'numpy', 'pyarrow', 'PIL', 'fsspec', 'click'} & set(sys.modules); assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
