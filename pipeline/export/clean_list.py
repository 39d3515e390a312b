"""`rho export list`: which samples to keep, to relabel and to leave out."""

import logging
from collections import Counter
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import CleanListConfig
from rhostream.pipeline.explain import (
    REASONS,
    indented,
    judgments,
    named_il_model,
    named_run,
    sample_reasons,
    why_doubted,
)
from rhostream.pipeline.sql import query, quote
from rhostream.schema import CLEAN_LIST, CLEAN_LIST_OF_PAIRS

_NAMED: Final = 10  # classes
_LOG: Final = logging.getLogger(__name__)


def clean_list(workspace: Workspace | str, config: CleanListConfig = CleanListConfig()) -> pa.Table:
    """A row per training sample, `rhostream.schema.CLEAN_LIST` (or `CLEAN_LIST_OF_PAIRS`), the likeliest issues first.

    A warning is logged where the IL model is too weak to call labels wrong by.

    Raises:
        ConfigError: an unknown reason, run or IL model, or several where none is named; a multi-label corpus; a
            list that drops more than it may, see `refuse_heavy_drops`.
        WorkspaceError: no workspace.
    """
    table = query(workspace, clean_list_sql(workspace, config))
    of_pairs = "similarity" in table.column_names
    table = table.cast(CLEAN_LIST_OF_PAIRS if of_pairs else CLEAN_LIST)
    model = named_il_model(Workspace(workspace), config.il, config.run or "", required=True)
    doubt = None if of_pairs else why_doubted(lambda sql: query(workspace, sql), model or "")
    if doubt is not None:
        _LOG.warning("%s", doubt)
    refuse_heavy_drops(workspace, table, config.max_drop_share)
    return table


def refuse_heavy_drops(workspace: Workspace | str, table: pa.Table, most: float) -> None:
    """Raises ConfigError where a clean list drops a larger share than `most` of the training samples.

    Counted are all of them, and those of each class, by the workspace's own labels: a list may name only some.
    """
    if most >= 1:
        return
    known = query(workspace, "FROM samples LIMIT 0").column_names
    named = "unnest(classes)" if "classes" in known else "class" if "class" in known else "'all pairs'"
    train = query(workspace, f"SELECT key, {named} AS class FROM samples WHERE split = 'train'")
    dropped = table.filter(pc.equal(table["action"], "drop"))["key"]
    left_out = train.filter(pc.is_in(train["key"], dropped.combine_chunks()))
    samples, drops = Counter(train["class"].to_pylist()), Counter(left_out["class"].to_pylist())
    heavy = sorted((name for name in drops if drops[name] > most * samples[name]), key=lambda name: -drops[name])
    lost, whole = (len(set(rows["key"].to_pylist())) for rows in (left_out, train))
    if not heavy and lost <= most * whole:
        return
    listed = ", ".join(f"{name} ({drops[name]} of {samples[name]})" for name in heavy[:_NAMED])
    more = f" and {len(heavy) - _NAMED} more" if len(heavy) > _NAMED else ""
    if "class" not in known and "classes" not in known:
        raise ConfigError(
            f"the list drops {lost} of {whole} training pairs, more than {most:.0%}: train a better reference model, "
            "or allow it with --max-drop-share 1"
        )
    of_classes = f", more than {most:.0%} of {len(heavy)} of {len(samples)} classes: {listed}{more}"
    raise ConfigError(
        f"the list drops {lost} of {whole} training samples{of_classes if heavy else ''}. A "
        "class of which most is called mislabeled is rather one that the IL model has not learnt: train a better one "
        "(more held-out data, folds, a larger model), or allow it with --max-drop-share 1"
    )


def clean_list_sql(workspace: Workspace | str, config: CleanListConfig) -> str:
    if unknown := sorted(set(config.drop) - set(REASONS)):
        raise ConfigError(f"--drop {unknown[0]!r}: known reasons are {', '.join(REASONS)}")
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    if corpus.task == "multi_label":
        raise ConfigError(
            "a clean list says keep, drop or another class of each sample's one label, and the corpus is multi-label: "
            "export the samples themselves, with `--reason` or `--sql`"
        )
    run = named_run(workspace, config.run) if config.run is not None else ""
    model = named_il_model(workspace, config.il, run, required=True)
    if corpus.task == "pairs" and config.relabel is not None:
        raise ConfigError("--relabel: image-text pairs have no other class to be given; leave it out")
    drops = ", ".join(quote(reason) for reason in sorted(set(config.drop) - {"mislabeled"})) or "''"
    issues = "drop" if "mislabeled" in config.drop else "keep"
    if corpus.task == "pairs":
        return f"""\
SELECT
  key, source, text, is_label_issue, exp(-il)::FLOAT AS label_quality, similarity, beaten_by::FLOAT AS beaten_by, il,
  reason, CASE WHEN is_label_issue THEN {quote(issues)} WHEN reason IN ({drops}) THEN 'drop' ELSE 'keep' END AS action,
  '' AS class
FROM (
{indented(_facts_of_pairs(run, model or ""))}
)
ORDER BY is_label_issue DESC, beaten_by DESC NULLS LAST, similarity, key"""
    relabel = "false" if config.relabel is None else f"is_label_issue AND confidence >= {config.relabel}"
    facts = f"WITH facts AS (\n{indented(_facts(run, model or ''))}\n)"
    return f"""\
{facts}, decided AS (
  SELECT
    *,
    CASE
      WHEN {relabel} THEN 'relabel'
      WHEN is_label_issue THEN {quote(issues)}
      WHEN reason IN ({drops}) THEN 'drop'
      ELSE 'keep'
    END AS action
  FROM facts
), names AS (
  SELECT label, any_value(class) AS class FROM samples GROUP BY label
)
SELECT
  key, source, is_label_issue, exp(-il)::FLOAT AS label_quality, given_label, predicted_label,
  given.class AS given_class, predicted.class AS predicted_class, confidence, il, reason, action,
  CASE action WHEN 'relabel' THEN predicted_label ELSE given_label END AS label,
  CASE action WHEN 'relabel' THEN predicted.class ELSE given.class END AS class
FROM decided
JOIN names AS given ON given.label = given_label
LEFT JOIN names AS predicted ON predicted.label = predicted_label
ORDER BY is_label_issue DESC, il DESC NULLS LAST, key"""


def _facts_of_pairs(run: str, model: str) -> str:
    """SQL: key, source, text, similarity, beaten_by, il, reason, is_label_issue of the training split."""
    told = f"SELECT key, il, similarity, beaten_by, contradicted FROM (\n{indented(judgments(model, 'pairs'))}\n)"
    issue, reason = "coalesce(contradicted, false)", "NULL::VARCHAR"
    if run:
        issue, reason = "contradicted AND NOT coalesce(latest_correct, false)", "reason"
        told = (
            "SELECT key, il, similarity, beaten_by, contradicted, latest_correct, reason FROM (\n"
            f"{indented(sample_reasons(run, model, task='pairs'))}\n)"
        )
    return f"""\
SELECT key, source, text, similarity, beaten_by, il, {reason} AS reason, {issue} AS is_label_issue
FROM (SELECT key, source, text FROM samples WHERE split = 'train')
LEFT JOIN (
{indented(told)}
) USING (key)"""


def _facts(run: str, model: str) -> str:
    """SQL: key, source, given_label, predicted_label, confidence, il, reason, is_label_issue of the training split."""
    if run:
        return f"""\
SELECT
  key, source, reasons.label AS given_label, predicted AS predicted_label, confidence, il, reason,
  contradicted AND NOT coalesce(latest_correct, false) AS is_label_issue
FROM (
{indented(sample_reasons(run, model))}
) AS reasons
JOIN (SELECT key, source FROM samples) USING (key)"""
    return f"""\
SELECT
  key, source, train.label AS given_label, predicted AS predicted_label, confidence, il, NULL::VARCHAR AS reason,
  coalesce(contradicted, false) AS is_label_issue
FROM (SELECT key, source, label FROM samples WHERE split = 'train') AS train
LEFT JOIN (
{indented(judgments(model))}
) USING (key)"""
