"""Questions about selection as a whole: by class, by irreducible loss, over time."""

from typing import Final

from rhostream.pipeline.explain.contradictions import judgments
from rhostream.pipeline.explain.history import in_steps, sample_history
from rhostream.pipeline.explain.reasons import SKIPPED_BELOW
from rhostream.pipeline.explain.scope import Scope, identifier, indented
from rhostream.pipeline.sql import quote

STRETCHES: Final = 20  # at most, of a run
GROUPS: Final = 10  # of equal size, by irreducible loss


def classes(scope: Scope) -> str:
    """`accuracy`: share of the samples whose label the model predicted when it last scored them.

    A multi-label sample counts in each of its classes.
    """
    lists = scope.multi_label and scope.by in (scope.class_column, scope.label_column)
    value = f"unnest({identifier(scope.by)})" if lists else identifier(scope.by)
    shown = {"classes": "class", "labels": "label"}[scope.by] if lists else scope.by
    alone = f"\n  WHERE value = {quote(scope.class_name)}" if lists and scope.class_name and shown == "class" else ""
    return f"""\
WITH history AS (
{indented(sample_history(scope.run, scope.steps, several_ranks=scope.several_ranks))}
), rates AS (
  SELECT
    value, count(*) AS samples, coalesce(sum(drawn), 0)::BIGINT AS candidates,
    coalesce(sum(selected), 0)::BIGINT AS selected,
    sum(selected) / sum(drawn) AS selection_rate,
    count(*) FILTER (coalesce(selected, 0) = 0) / count(*) AS never_selected,
    avg(latest_correct::INT) AS accuracy, avg(latest_loss) AS latest_loss, avg(il) AS il
  FROM (SELECT key, {value} AS value FROM {scope.samples} WHERE split = 'train' AND {scope.of_class})
  LEFT JOIN (SELECT key, drawn, selected, latest_correct, latest_loss, il FROM history) USING (key){alone}
  GROUP BY value
)
SELECT
  value AS {identifier(shown)}, samples, candidates, selected, selection_rate, never_selected, accuracy, latest_loss,
  il,
  selection_rate < {SKIPPED_BELOW} * (SELECT sum(selected) / sum(drawn) FROM history) AS starved
FROM rates
ORDER BY selection_rate, samples DESC, value{scope.limited}"""


def il(scope: Scope) -> str:
    disagrees, predicted = {
        "classification": ("coalesce(predicted <> label, false)", ", predicted"),
        "multi_label": ("NULL::BOOLEAN", ""),
        "pairs": ("coalesce(contradicted, false)", ", contradicted"),
    }[scope.task]
    return f"""\
WITH history AS (
{indented(sample_history(scope.run, scope.steps, several_ranks=scope.several_ranks))}
), scored AS (
  SELECT train.key, coalesce(guess.il, history.il) AS loss, drawn, selected, {disagrees} AS disagrees
  FROM (SELECT key, {scope.label_column} FROM samples WHERE split = 'train' AND {scope.of_class}) AS train
  JOIN history ON history.key = train.key
  LEFT JOIN (
{indented(_guesses(scope, predicted))}
  ) AS guess
    ON guess.key = train.key
)
SELECT
  bucket, min(loss) AS lowest_il, max(loss) AS highest_il, count(*) AS samples, sum(drawn)::BIGINT AS candidates,
  sum(selected)::BIGINT AS selected, sum(selected) / sum(drawn) AS selection_rate,
  avg(disagrees::INT) AS il_model_disagrees
FROM (SELECT *, ntile({GROUPS}) OVER (ORDER BY loss, key) AS bucket FROM scored WHERE loss IS NOT NULL)
GROUP BY bucket
ORDER BY bucket{scope.limited}"""


def _guesses(scope: Scope, columns: str) -> str:
    if scope.task == "pairs":
        return f"SELECT key, il{columns} FROM ({judgments(scope.il_model, scope.task)})"
    return f"SELECT key, il{columns} FROM il WHERE il_model = {quote(scope.il_model or '')}"


def run(scope: Scope) -> str:
    """Stretches of a whole number of reports (lines of metrics), so that both tables tell of the same steps."""
    run = quote(scope.run)
    first = scope.steps[0] or 1
    last = "step" if scope.steps[1] is None else f"least(step, {scope.steps[1]:d})"
    of_class = "" if scope.class_name is None else f" AND label IN (SELECT label FROM samples WHERE {scope.of_class})"
    if scope.multi_label and scope.class_name is not None:
        number = f"any_value(labels[list_position(classes, {quote(scope.class_name)})])"
        of_class = f" AND list_contains(labels, (SELECT {number} FROM samples WHERE {scope.of_class}))"
    # metrics.jsonl counts wrong labels of all classes together.
    lines = "" if scope.class_name is None else " AND false"
    return f"""\
WITH lengths AS (
  SELECT {last} - {first} + 1 AS steps FROM (SELECT max(latest_step) AS step FROM history WHERE run = {run})
), reports AS (
  SELECT coalesce(min(step), 1) AS every FROM metrics WHERE run = {run}
), widths AS (
  SELECT greatest(every * ceil(steps / every / {STRETCHES}), 1)::BIGINT AS width FROM lengths, reports
), stretches AS (
  SELECT
    (step - 1) // width AS stretch, min(step) AS from_step, max(step) AS to_step,
    count(*) AS candidates, count(*) FILTER (selected) AS selected,
    avg(loss) AS loss, avg(loss) FILTER (selected) AS selected_loss,
    avg(il) AS il, avg(il) FILTER (selected) AS selected_il,
    avg(score) AS score, avg(score) FILTER (selected) AS selected_score,
    avg(correct::INT) AS correct, avg(correct::INT) FILTER (selected) AS selected_correct
  FROM ledger, widths
  WHERE run = {run} AND {in_steps(scope.steps)}{of_class}
  GROUP BY stretch
), wrong AS (
  SELECT
    (step - 1) // width AS stretch,
    sum(candidates_mislabeled * candidates) / sum(candidates) AS mislabeled,
    sum(selected_mislabeled * selected) / sum(selected) AS selected_mislabeled
  FROM metrics, widths
  WHERE run = {run} AND {in_steps(scope.steps)}{lines}
  GROUP BY stretch
)
SELECT stretches.* EXCLUDE (stretch), mislabeled, selected_mislabeled
FROM stretches
LEFT JOIN wrong USING (stretch)
ORDER BY from_step{scope.limited}"""
