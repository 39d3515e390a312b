"""Variants of a comparison: selection functions with settings of their own."""

from dataclasses import replace

import pytest

from rhostream import ConfigError
from rhostream.pipeline.comparison.variants import parse_variant
from rhostream.pipeline.config.train_config import TrainConfig


def test_settings_are_typed_and_others_come_from_the_comparison():
    variant = parse_variant("rho_loss:super_batch_size=640:learning_rate=1e-2:score_ahead=true:schedule=constant")
    config = variant.config(TrainConfig(select="rho_loss", weight_decay=0.5, epochs=3.0), steps=70)
    assert (config.select, config.super_batch_size, config.learning_rate, config.score_ahead, config.schedule) == (
        "rho_loss",
        640,
        0.01,
        True,
        "constant",
    )
    assert (config.weight_decay, config.steps, config.epochs) == (0.5, 70, 0.0)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("uniform", (70, 0.0, 0)),
        ("uniform:steps=5", (5, 0.0, 0)),
        ("uniform:candidates=640", (1000, 0.0, 640)),
        ("uniform:epochs=2", (1000, 2.0, 0)),
    ],
)
def test_a_variant_has_the_common_steps_or_its_own_budget(text, budget):
    config = parse_variant(text).config(TrainConfig(select="rho_loss"), steps=70)
    assert (config.steps, config.epochs, config.candidates) == budget


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("uniform", "uniform"),
        (" uniform:batch_size=128:steps=5 ", "uniform-batch_size128-steps5"),
        ("rho_loss:weights=/a b/ü.safetensors", "rho_loss-weights-a-b-.safetensors"),
    ],
)
def test_a_variants_name_is_safe_as_a_files(text, name):
    assert parse_variant(text).file_name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "uniform:batchsize=128",
            r"variant 'uniform:batchsize=128': unknown setting 'batchsize'; did you mean 'batch_",
        ),
        ("uniform:batch_size=many", "batch_size = 'many' is not a whole number"),
        ("uniform:score_ahead=maybe", "score_ahead = 'maybe' is not true or false"),
        ("uniform:schedule=step", "schedule = 'step' is not one of cosine, linear, constant"),
        ("uniform:batch_size", "'batch_size' is no setting; write function:setting=value"),
        ("uniform:batch_size=", "'batch_size=' is no setting"),
        ("uniform:batch_size=1:batch_size=2", "batch_size is set twice"),
        ("uniform:il_runs=3", "il_runs cannot differ"),
        ("uniform:select=rho_loss", "select cannot differ"),
        ("uniform:steps=3:epochs=2", "budget in one of steps, epochs"),
        ("", "begins with no selection function"),
        ("rholoss:batch_size=3", "rholoss"),
    ],
)
def test_an_invalid_variant_is_quoted_and_refused_in_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_variant(text)
    assert "\n" not in str(error.value)


def test_settings_that_do_not_go_together_name_the_variant():
    with pytest.raises(ConfigError, match="variant 'uniform:batch_size=999': batch size 999 exceeds"):
        parse_variant("uniform:batch_size=999").config(TrainConfig(select="rho_loss"), steps=1)


def test_a_comparisons_prefilter_spares_uniform_unless_it_asks():
    base = TrainConfig(select="rho_loss", prefilter=1.0)
    assert parse_variant("uniform").config(base, steps=1).prefilter == 0.0
    assert parse_variant("rho_loss").config(base, steps=1).prefilter == 1.0
    assert parse_variant("uniform:prefilter=2").config(base, steps=1).prefilter == 2.0


def test_a_comparisons_settings_of_scores_spare_uniform():
    base = TrainConfig(select="learnability", score_ahead=True, rule="gumbel", temperature=2.0)
    config = parse_variant("uniform:rule=default").config(base, steps=1)
    assert (config.score_ahead, config.temperature) == (False, 1.0)
    assert parse_variant("learnability").config(base, steps=1) == replace(base, steps=1)
