"""The questions of the report, as SQL: what stands behind every chart and picture, and can be copied from the page.

All but those over `ledger`, `metrics` and `rejects` ask `sample_reasons` (`rhostream.pipeline.explain.reasons`).
"""

from collections.abc import Sequence
from typing import Final

from rhostream.pipeline.sql import quote

#: Regions of the loss x IL map, by the reasons that lie in them. The rest was never judged by loss and IL.
REGIONS: Final[dict[str, tuple[str, ...]]] = {
    "redundant": ("redundant",),
    "learnable": ("selected", "outbid"),
    "noisy": ("mislabeled", "less_relevant", "filtered"),
}

COLUMNS, ROWS = 36, 28  # cells of the loss x IL map
HISTOGRAM_BINS: Final = 40
TIME_BINS: Final = 30
OUTER: Final = 0.005  # share of the samples at either end that the outermost bins take up

MOST_PAIRS: Final = 4000  # of given and predicted label
REJECTS_PER_REASON: Final = 5


def reasons() -> str:
    return "SELECT reason, count(*) AS samples FROM sample_reasons GROUP BY reason ORDER BY samples DESC, reason"


#: Columns of `samples` that tell which labels, or captions of pairs, are wrong; where the truth is known.
TRUTH: Final[dict[str, str]] = {
    "classification": "clean_label",
    "multi_label": "clean_label",
    "pairs": "mismatched",
}


def classes(truth: bool, task: str = "classification", clustering: str | None = None) -> str:
    """One row per class; of pairs, which have none, one of all, or one per cluster.

    Args:
        truth: does the corpus have the column of `TRUTH`?
        task: in a multi-label corpus a sample counts in each of its classes, and none is judged. With pairs "agreed"
            are those of which no other caption is more like the image, and "beaten" those of which half are.
    """
    judged, of_class, name = "count(*) FILTER (in_sample IS FALSE)", "sample_reasons", "class"
    agreed, beaten = "count(*) FILTER (in_sample IS FALSE AND predicted = label)", ""
    if task == "multi_label":
        judged = agreed = "NULL::BIGINT"
        of_class = "(SELECT *, unnest(classes) AS class FROM sample_reasons)"
    elif task == "pairs":
        name, agreed = "'all pairs' AS class", "count(*) FILTER (in_sample IS FALSE AND beaten_by = 0)"
        if clustering is not None:
            told = f"SELECT key, cluster FROM clusters WHERE clustering = {quote(clustering)}"
            name, of_class = "'cluster ' || cluster AS class", f"sample_reasons\nJOIN ({told}) USING (key)"
        beaten = " count(*) FILTER (in_sample IS FALSE AND beaten_by > 0.5) AS beaten,"
    is_wrong = "mismatched" if task == "pairs" else "clean_label <> label"
    wrong = f"count(*) FILTER ({is_wrong})" if truth else "NULL::BIGINT"
    found = f"count(*) FILTER ({is_wrong} AND contradicted)" if truth else "NULL::BIGINT"
    known = f"count({TRUTH[task]})" if truth else "NULL::BIGINT"
    joined = f"\nLEFT JOIN ({_truth(task)}) USING (key)" if truth else ""
    return f"""\
SELECT {name}, count(*) AS samples,{beaten}
       {judged} AS judged, {agreed} AS agreed, count(*) FILTER (contradicted) AS contradicted,
       {wrong} AS wrong, {found} AS wrong_and_contradicted, {known} AS truth_known,
       sum(drawn)::BIGINT AS drawn, sum(selected)::BIGINT AS selected,
       sum(selected) / nullif(sum(drawn), 0) AS selection_rate,
       count(*) FILTER (drawn > 0 AND selected = 0) AS never_selected
FROM {of_class}{joined}
GROUP BY class
ORDER BY samples DESC, class"""


def _truth(task: str) -> str:
    column, kind = TRUTH[task], "BOOLEAN" if task == "pairs" else "INTEGER"
    return f"SELECT key, try_cast({column} AS {kind}) AS {column} FROM samples WHERE split = 'train'"


def loss_il_map() -> str:
    """Counts by cell; the outermost cells hold what lies beyond them too."""
    counts = ",\n       ".join(
        f"count(*) FILTER (reason IN ({', '.join(map(quote, reasons))})) AS {region}"
        for region, reasons in REGIONS.items()
    )
    return f"""\
WITH scored AS (
  SELECT il, latest_loss AS loss, bar, reason FROM sample_reasons WHERE isfinite(il) AND isfinite(latest_loss)
), bounds AS (
  SELECT quantile_cont(il, {OUTER}) AS il_from, quantile_cont(il, {1 - OUTER}) AS il_to,
         quantile_cont(loss, {OUTER}) AS loss_from, quantile_cont(loss, {1 - OUTER}) AS loss_to
  FROM scored
)
SELECT greatest(0, least({COLUMNS - 1}, floor({COLUMNS} * (il - il_from) / nullif(il_to - il_from, 0))))::INTEGER AS x,
       greatest(0, least({ROWS - 1}, floor({ROWS} * (loss - loss_from) / nullif(loss_to - loss_from, 0))))::INTEGER
         AS y,
       {counts},
       any_value(il_from) AS il_from, any_value(il_to) AS il_to,
       any_value(loss_from) AS loss_from, any_value(loss_to) AS loss_to, any_value(bar) AS bar
FROM scored CROSS JOIN bounds
WHERE il_to > il_from AND loss_to > loss_from
GROUP BY x, y
ORDER BY x, y"""


def il_histogram(task: str = "classification") -> str:
    """Counts by bin of the irreducible loss, of samples whose label the IL model predicts and of the others.

    Of a multi-label corpus all are others, of pairs those whose caption is contradicted.
    """
    others: dict[str, str] = {
        "classification": "predicted IS DISTINCT FROM label",
        "multi_label": "true",
        "pairs": "contradicted",
    }
    other = others[task]
    return f"""\
WITH judged AS (
  SELECT il, {other} AS other FROM sample_reasons WHERE isfinite(il) AND in_sample IS NOT TRUE
), bounds AS (
  SELECT quantile_cont(il, {OUTER}) AS il_from, quantile_cont(il, {1 - OUTER}) AS il_to FROM judged
)
SELECT greatest(0, least({HISTOGRAM_BINS - 1},
           floor({HISTOGRAM_BINS} * (il - il_from) / nullif(il_to - il_from, 0))))::INTEGER AS bin,
       count(*) FILTER (NOT other) AS agrees, count(*) FILTER (other) AS differs,
       any_value(il_from) AS il_from, any_value(il_to) AS il_to
FROM judged CROSS JOIN bounds
WHERE il_to > il_from
GROUP BY bin
ORDER BY bin"""


def confusion() -> str:
    """What the IL model predicts in place of the given label; nats of irreducible loss tell how firmly."""
    return f"""\
SELECT given.class AS given, guess.class AS predicted, samples, il
FROM (
  SELECT label, predicted, count(*) AS samples, sum(il) AS il
  FROM sample_reasons
  WHERE predicted <> label AND NOT in_sample AND isfinite(il)
  GROUP BY label, predicted
) AS pairs
JOIN (SELECT DISTINCT label, class FROM samples) AS given ON given.label = pairs.label
LEFT JOIN (SELECT DISTINCT label, class FROM samples) AS guess ON guess.label = pairs.predicted
ORDER BY il DESC, given, predicted
LIMIT {MOST_PAIRS}"""


def over_time(run: str) -> str:
    """Means over all candidates and over the selected, by stretch of the run."""
    return f"""\
SELECT min(step) AS first_step, max(step) AS last_step,
       avg(loss) AS candidates_loss, avg(loss) FILTER (selected) AS selected_loss,
       avg(il) AS candidates_il, avg(il) FILTER (selected) AS selected_il,
       avg(correct::INTEGER) AS candidates_correct, avg(correct::INTEGER) FILTER (selected) AS selected_correct
FROM ledger
CROSS JOIN (SELECT max(step) AS steps FROM ledger WHERE run = {quote(run)})
WHERE run = {quote(run)}
GROUP BY (step - 1) * {TIME_BINS} // steps
ORDER BY first_step"""


def metrics() -> str:
    return "FROM metrics ORDER BY run, step"


def rejects() -> str:
    return "SELECT reason, count(*) AS entries FROM rejects GROUP BY reason ORDER BY entries DESC, reason"


def rejects_examples() -> str:
    return f"""\
SELECT reason, source, detail
FROM rejects
QUALIFY row_number() OVER (PARTITION BY reason ORDER BY source) <= {REJECTS_PER_REASON}
ORDER BY reason, source"""


#: The galleries: which samples, and which of them first.
GALLERIES: Final[dict[str, tuple[str, str]]] = {
    "suspicious": ("contradicted", "il DESC"),
    "redundant": ("reason = 'redundant'", "latest_loss + coalesce(il, 0)"),
    "never_selected": ("drawn > 0 AND selected = 0", "drawn DESC, il DESC"),
    "most_selected": ("selected > 0", "selected DESC, selected / drawn DESC"),
}


#: The same of pairs, where it differs: the captions that most others beat, first.
_SUSPICIOUS_PAIRS: Final = ("contradicted", "beaten_by DESC, similarity")

_UNPAIRED: Final = "NULL::VARCHAR AS caption, NULL::FLOAT AS similarity, NULL::DOUBLE AS beaten_by"
#: The classes of a sample, the class that is predicted, its caption, similarity and what beats it, and a join.
_GUESS: Final[dict[str, tuple[str, str, str, str]]] = {
    "classification": (
        "[samples.class]",
        "guess.class",
        _UNPAIRED,
        "\nLEFT JOIN (SELECT DISTINCT label, class FROM samples) AS guess ON guess.label = predicted",
    ),
    "multi_label": ("samples.classes", "NULL::VARCHAR", _UNPAIRED, ""),
    "pairs": ("[]::VARCHAR[]", "NULL::VARCHAR", "samples.text AS caption, similarity, beaten_by", ""),
}


def chosen(keys: Sequence[str], task: str = "classification") -> str:
    """These samples, in this order, with the columns of a gallery."""
    return f"""\
SELECT key, list_position(keys, key) AS rank, {_card(task)}
FROM sample_reasons
CROSS JOIN (SELECT [{", ".join(map(quote, keys))}] AS keys)
JOIN samples USING (key){_GUESS[task][-1]}
WHERE samples.split = 'train' AND list_contains(keys, key)
ORDER BY rank"""


def _card(task: str) -> str:
    """The columns that a picture is made of, beside its key and rank."""
    classes, guess, caption, _ = _GUESS[task]
    return f"""\
{classes} AS classes, {guess} AS predicted_class, {caption}, il, confidence, latest_loss AS loss, drawn,
       selected, reason, samples.shard, samples."offset", samples.size, content_hash, samples.source"""


def gallery(name: str, *, most: int, per_class: int, per_reason: int, task: str = "classification") -> str:
    """The first `most` samples of a gallery, and the first few of each class and of each reason.

    `classes` are the names of a sample's classes: one, of a multi-label corpus all, and of pairs none.
    """
    condition, order = _SUSPICIOUS_PAIRS if (name, task) == ("suspicious", "pairs") else GALLERIES[name]
    ranked, joined = "", _GUESS[task][-1]
    in_class = f"\n         row_number() OVER (PARTITION BY label ORDER BY {order}, key) AS rank_in_class,"
    if task == "classification":
        ranked = in_class
    elif task == "multi_label":
        joined = f"""
LEFT JOIN (
  SELECT key, min(place) AS rank_in_class
  FROM (
    SELECT key, row_number() OVER (PARTITION BY class ORDER BY {order}, key) AS place
    FROM (SELECT *, unnest(classes) AS class FROM sample_reasons WHERE {condition})
  )
  GROUP BY key
) AS in_class USING (key)"""
    few_of_each = "" if task == "pairs" else f" OR rank_in_class <= {per_class}"
    return f"""\
SELECT key, rank, {_card(task)}
FROM (
  SELECT *, row_number() OVER (ORDER BY {order}, key) AS rank,{ranked}
         row_number() OVER (PARTITION BY reason ORDER BY {order}, key) AS rank_in_reason
  FROM sample_reasons
  WHERE {condition}
) AS chosen
JOIN samples USING (key){joined}
WHERE samples.split = 'train' AND (rank <= {most}{few_of_each} OR rank_in_reason <= {per_reason})
ORDER BY rank"""
