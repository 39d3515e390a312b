"""Why a training sample is skipped: the one definition, for `rho explain`, `rho export` and the report.

A sample is **skipped** in a run where it was selected less than half as often as the run selects: selected / drawn
below half of the run's own selected / drawn. So one that was never selected always is. RHO-LOSS skips a sample
because its loss is low (nothing left to learn) or because its irreducible loss is high (nothing that can be learnt).
Which of the two it was is told by its loss **when it was last scored**, against **the bar**: the reducible loss
(loss - IL) that nine in ten of the samples exceeded which were selected the last time they were scored. Loss and bar
are of the same stretch of the run, so that a sample late in training is not measured by the losses of its first steps.

Each sample of the training split has the first of these reasons that fits:

never_drawn     No candidate in these steps.
selected        Not skipped.
unreadable      It was drawn, or even chosen, and its image could not be read.
filtered        Most of its draws were ruled out by its irreducible loss before it was read.
il_missing      Most of its draws had no irreducible loss (`on_missing = "drop"`).
set_aside       It was kept for validation, or is not in the core set that the run trains on.
unscored        It never had a score, as the selection function gives none (uniform): skipped by chance.
redundant       The model already predicts the label, and what is left of its loss is no matter of noise. Either it
                would have missed the bar with no IL deducted at all: its latest loss is below the bar, or below
                -ln 0.9 = 0.105 nats (the model gives the label 90%; for runs so late that the bar is near 0). Or it
                is below the bar by an IL under ln 2: held-out data alone give the label better than even odds, and
                the model has learnt it about as well as they allow.
mislabeled     An IL model that never saw it contradicts the label: see `contradictions`.
less_relevant   A high IL brings it below the bar: it is unlike the held-out data (an outlier, an ambiguous or rare
                one), or not learnable so far. Also where the selection function reads no loss at all.
outbid          Worth learning by its latest loss (at or above the bar): others of its super-batches were worth more.

In a multi-label corpus all losses are means over the classes, and "predicts the label" is that every class is right. No
sample is contradicted, and none is mislabeled: a verdict on one of many labels would need the probabilities of each.

Of pairs the loss is that among the candidates of a super-batch, and the irreducible loss that among a thousand other
captions, so that none is deducted: the bar is a loss. That the model predicts the label is that no other caption of the
super-batch is more like the image.

So a sample that the IL model contradicts, but which the model in training has learnt without being trained much on
it, is redundant and not mislabeled: the stronger model sides with the label. The column `contradicted` has the IL
model's word alone, whatever the reason.
"""

from typing import Final

from rhostream.pipeline.explain.contradictions import judgments
from rhostream.pipeline.explain.history import ALL_STEPS, Steps, sample_history

#: Every value of `sample_reasons.reason` in the order of precedence, with what to tell people.
REASONS: Final[dict[str, str]] = {
    "never_drawn": "never drawn as a candidate",
    "selected": "selected often enough",
    "unreadable": "its image could not be read",
    "filtered": "ruled out by its irreducible loss before it was read",
    "il_missing": "it has no irreducible loss",
    "set_aside": "kept for validation, or not in the run's core set",
    "unscored": "never scored: skipped by chance",
    "redundant": "already learnt: the model predicts the label, and its loss is low",
    "mislabeled": "likely mislabeled: held-out data contradict the label, or the caption",
    "less_relevant": "less relevant, or not learnable so far: its irreducible loss is high",
    "outbid": "worth learning, but others were worth more",
}

SKIPPED_BELOW: Final = 0.5  # of the run's own selection rate
BAR_QUANTILE: Final = 0.1  # of the reducible losses of what was selected when last scored
LEARNT: Final = 0.105  # nats, -ln 0.9
#: The columns of `samples` that say what is to be learnt of a sample, by the task of the corpus.
LABELS: Final[dict[str, str]] = {
    "classification": "label, class",
    "multi_label": "labels, classes",
    "pairs": "text",
}

EVEN_ODDS: Final = 0.693  # nats, ln 2: an IL below it makes the label more likely than all other classes together


def sample_reasons(
    run: str,
    il_model: str | None,
    steps: Steps = ALL_STEPS,
    *,
    several_ranks: bool = True,
    task: str = "classification",
) -> str:
    """SQL: one row per sample of the training split, with the reason. Use it as `WITH sample_reasons AS (…)`.

    Columns: key, shard, row, label, class (of a multi-label corpus labels, classes; of pairs the caption, text); drawn,
    selected (times); latest_loss (nats), latest_correct and latest_selected, when it was last scored; il (nats),
    predicted (label), confidence, in_sample, contradicted (false where nothing is known); of pairs similarity and
    beaten_by, see `judgments`; bar (nats, the same in every row); reason.

    Args:
        il_model: whose table tells predicted labels; None where the run's IL came from elsewhere, or it had none.
        steps: only these of the run.
        task: of the corpus. Predicted and confidence are NULL but of a classification.
        several_ranks: False where a single process wrote the run, which saves a second over a million samples.
    """
    likeness = ", similarity, beaten_by" if task == "pairs" else ""
    labels, deducted = LABELS[task], "0" if task == "pairs" else "coalesce(il, 0)"
    learnt = f"\n    WHEN latest_correct AND il < {EVEN_ODDS} AND latest_loss - il < bar THEN 'redundant'"
    return f"""\
WITH history AS (
{_indented(sample_history(run, steps, several_ranks=several_ranks))}
), guesses AS (
{_indented(judgments(il_model, task))}
), train AS (
  SELECT key, shard, row, {labels} FROM samples WHERE split = 'train'
), joined AS (
  SELECT
    train.*,
    coalesce(drawn, 0) AS drawn, coalesce(selected, 0) AS selected,
    coalesce(scored, 0) AS scored, coalesce(filtered, 0) AS filtered,
    coalesce(il_missing, 0) AS il_missing, coalesce(set_aside, 0) AS set_aside,
    coalesce(unreadable, 0) AS unreadable,
    latest_loss, latest_correct, latest_selected,
    coalesce(guesses.il, history.il) AS il, predicted, confidence, in_sample,
    coalesce(contradicted, false) AS contradicted{likeness}
  FROM train
  LEFT JOIN history ON history.key = train.key
  LEFT JOIN guesses ON guesses.key = train.key
), run_facts AS (
  SELECT
    sum(selected) / sum(drawn) AS selection_rate,
    quantile_cont(latest_loss - {deducted}, {BAR_QUANTILE}) FILTER (latest_selected) AS bar
  FROM joined
)
SELECT
  key, shard, row, {labels}, drawn, selected, latest_loss, latest_correct, latest_selected,
  il, predicted, confidence, in_sample, contradicted{likeness}, bar,
  CASE
    WHEN drawn = 0 THEN 'never_drawn'
    WHEN selected >= {SKIPPED_BELOW} * selection_rate * drawn AND selected > 0 THEN 'selected'
    WHEN unreadable > 0 THEN 'unreadable'
    WHEN 2 * filtered > drawn THEN 'filtered'
    WHEN 2 * il_missing > drawn THEN 'il_missing'
    WHEN set_aside = drawn THEN 'set_aside'
    WHEN scored = 0 THEN 'unscored'
    WHEN latest_correct AND latest_loss < greatest(bar, {LEARNT}) THEN 'redundant'{"" if task == "pairs" else learnt}
    WHEN contradicted THEN 'mislabeled'
    WHEN latest_loss IS NULL OR latest_loss - {deducted} < bar THEN 'less_relevant'
    ELSE 'outbid'
  END AS reason
FROM joined CROSS JOIN run_facts"""


def _indented(sql: str) -> str:
    return "\n".join(f"  {line}" for line in sql.splitlines())
