"""Questions whose answer is a list of samples, or a count of them by reason."""

from rhostream.pipeline.explain.contradictions import judgments
from rhostream.pipeline.explain.history import sample_history
from rhostream.pipeline.explain.reasons import sample_reasons
from rhostream.pipeline.explain.scope import Scope, indented

_CLASS_OF_LABEL = "(SELECT label AS predicted, any_value(class) AS predicted_class FROM samples GROUP BY label)"


def reasons(scope: Scope) -> str:
    wrong = ", count(wrong) AS known_wrong" if scope.has_clean_label else ""
    clean = (
        "\nLEFT JOIN (SELECT key, true AS wrong FROM samples WHERE clean_label <> label) USING (key)"
        if scope.has_clean_label
        else ""
    )
    return f"""\
{_with_reasons(scope)}
SELECT
  reason, count(*) AS samples, count(*) / sum(count(*)) OVER () AS share,
  count(*) FILTER (contradicted) AS contradicted,
  avg(drawn) AS drawn, avg(selected) AS selected, avg(latest_loss) AS latest_loss, avg(il) AS il{wrong}
FROM sample_reasons{clean}
WHERE {scope.of_class}
GROUP BY reason
ORDER BY samples DESC, reason{scope.limited}"""


def skipped(scope: Scope) -> str:
    predicted, joined = ", predicted_class", f"\nLEFT JOIN {_CLASS_OF_LABEL} USING (predicted)"
    if scope.task != "classification":
        predicted, joined = scope.likeness, ""
    return f"""\
{_with_reasons(scope)}
SELECT
  key, {scope.class_column}, reason, drawn, selected, latest_loss, latest_correct, il{predicted}, {scope.shown_columns}
FROM (
  SELECT * FROM sample_reasons
  WHERE reason <> 'selected' AND {scope.of_class}
  ORDER BY drawn DESC, selected, il DESC, key{scope.limited}
)
JOIN (SELECT key, {scope.shown_columns} FROM {scope.samples}) USING (key){joined}
ORDER BY drawn DESC, selected, il DESC, key"""


def redundant(scope: Scope) -> str:
    return f"""\
{_with_reasons(scope)}
SELECT key, {scope.class_column}, drawn, selected, latest_loss, il{scope.likeness}, {scope.shown_columns}
FROM (
  SELECT * FROM sample_reasons
  WHERE reason = 'redundant' AND {scope.of_class}
  ORDER BY latest_loss + coalesce(il, 0), key{scope.limited}
)
JOIN (SELECT key, {scope.shown_columns} FROM {scope.samples}) USING (key)
ORDER BY latest_loss + coalesce(il, 0), key"""


def mislabeled(scope: Scope) -> str:
    """By the IL model alone; where a run is named, without those whose label its model has come to predict."""
    history, join, keep, more = "", "", "", ""
    if scope.run:
        history = f", history AS (\n{indented(_history(scope))}\n)"
        join = "\n  LEFT JOIN (SELECT key, latest_loss, latest_correct, drawn, selected FROM history) USING (key)"
        keep, more = "AND NOT coalesce(latest_correct, false)", ", latest_loss, latest_correct, drawn, selected"
    measured, shown = "", ""
    clean = "clean_label" if scope.has_clean_label else "NULL"
    if scope.has_clean_label:
        shown = ", clean_class, wrong, precision_at_k, recall_at_k"
        measured = """,
  sum(wrong::INT) OVER ranks / nullif(count(wrong) OVER ranks, 0) AS precision_at_k,
  sum(wrong::INT) OVER ranks / nullif((SELECT count(*) FROM scored WHERE wrong), 0) AS recall_at_k"""
    clean_class = (
        "\nLEFT JOIN (SELECT label AS clean_label, any_value(class) AS clean_class FROM samples GROUP BY label) "
        "USING (clean_label)"
        if scope.has_clean_label
        else ""
    )
    return f"""\
WITH labeled AS (
  SELECT key, label, class, {clean} AS clean_label, {clean} <> label AS wrong FROM samples
  WHERE {scope.of_split} AND {scope.of_class}
), judgments AS (
{indented(judgments(scope.il_model or ""))}
){history}, scored AS (
  SELECT labeled.*, il, predicted, confidence, contradicted{more}
  FROM labeled
  JOIN judgments USING (key){join}
  WHERE NOT in_sample
), suspected AS (
  SELECT *, row_number() OVER (ORDER BY il DESC, key) AS rank
  FROM scored
  WHERE contradicted {keep}
), ranked AS (
  SELECT *{measured}
  FROM suspected
  WINDOW ranks AS (ORDER BY rank)
  ORDER BY rank{scope.limited}
)
SELECT rank, key, class, predicted_class, il, confidence{more}, {scope.shown_columns}{shown}
FROM ranked
JOIN (SELECT key, {scope.shown_columns} FROM {scope.samples}) USING (key)
LEFT JOIN {_CLASS_OF_LABEL} USING (predicted){clean_class}
ORDER BY rank"""


def diff(scope: Scope) -> str:
    """Samples that two runs selected at unlike rates, the most unlike first; those that one never drew are left out."""
    first, other = (indented(_history(scope, run)) for run in (scope.run, scope.other))
    return f"""\
WITH first AS (
{first}
), other AS (
{other}
), compared AS (
  SELECT
    key, first.selected / first.drawn AS rate, other.selected / other.drawn AS other_rate,
    first.drawn, other.drawn AS other_drawn, first.latest_loss, other.latest_loss AS other_latest_loss,
    coalesce(first.il, other.il) AS il
  FROM first
  JOIN other USING (key){_of_class(scope)}
  ORDER BY abs(rate - other_rate) DESC, first.drawn + other.drawn DESC, key{scope.limited}
)
SELECT key, {scope.class_column}, compared.* EXCLUDE (key), {scope.shown_columns}
FROM compared
JOIN (SELECT key, {scope.class_column}, {scope.shown_columns} FROM {scope.samples}) USING (key)
ORDER BY abs(rate - other_rate) DESC, drawn + other_drawn DESC, key"""


def _of_class(scope: Scope) -> str:
    return (
        ""
        if scope.class_name is None
        else f"\n  SEMI JOIN (SELECT key FROM samples WHERE {scope.of_class}) USING (key)"
    )


def _history(scope: Scope, run: str = "") -> str:
    return sample_history(run or scope.run, scope.steps, several_ranks=scope.several_ranks)


def _with_reasons(scope: Scope) -> str:
    reasons = sample_reasons(
        scope.run,
        scope.il_model,
        scope.steps,
        several_ranks=scope.several_ranks,
        task=scope.task,
    )
    return f"WITH sample_reasons AS (\n{indented(reasons)}\n)"
