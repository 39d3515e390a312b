"""Which labels an IL model contradicts: the one definition, for `rho explain`, `rho export` and the report.

A label is contradicted by a model that never saw the sample where all of this holds:

1. It predicts another class.
2. It finds the given label less likely than blind chance: IL > ln(classes).
3. Its probability of the class that it predicts is at least that class's own threshold: the mean of that probability
   over the samples that bear the class's label (confident learning: Northcutt, Jiang & Chuang, JAIR 70, 2021, eq. 2).

By the third, a class that the model overrates, and so predicts for others, condemns no sample on the strength of that.

A caption is contradicted by a reference model that never saw the pair where it finds more than a quarter of the other
captions more like the image. Of captions that are another's, three in four rank so low, whatever the model.
"""

from collections.abc import Callable
from typing import Final

import pyarrow as pa

from rhostream.pipeline.il import FEWEST_CERTAIN, MOST_CERTAIN
from rhostream.pipeline.sql import quote

#: Of a pair: the share of the captions it was compared with that the reference model finds as much like the image.
BEATEN_BY: Final = "(rank - 1) / greatest(compared, 1)"
_CONTRADICTED_ABOVE: Final = 0.25
_MANY: Final = 0.05  # share of the labels: who contradicts fewer does little harm
_MORE_THAN_WRONG: Final = 2.0  # labels that are contradicted for each that looks wrong: most of them are right then
_MOST_OF_A_CLASS: Final = 0.5
_ENOUGH: Final = 20  # samples of a class, to tell
_NAMED: Final = 5  # classes


def judgments(il_model: str | None, task: str = "classification") -> str:
    """SQL: what the IL model says of each sample that it has scored.

    Columns: key, il (nats), predicted (label), confidence, in_sample, contradicted; of pairs also similarity (cosine)
    and beaten_by (share of the captions compared with that are as much like the image).

    Args:
        il_model: None gives no row.
        task: of the corpus. Of a multi-label one predicted and confidence are NULL, and nothing is contradicted; of
            pairs these are NULL, too.
    """
    rows = f"il_model = {quote(il_model)}" if il_model is not None else "false"
    if task != "classification":
        contradicted, more = "false", ""
        if task == "pairs":
            contradicted = f"NOT in_sample AND {BEATEN_BY} > {_CONTRADICTED_ABOVE}"
            more = f",\n  similarity, {BEATEN_BY} AS beaten_by"
        return f"""\
SELECT
  key, il, NULL::INTEGER AS predicted, NULL::FLOAT AS confidence, in_sample, {contradicted} AS contradicted{more}
FROM il WHERE {rows}"""
    return f"""\
SELECT
  key, il, predicted, confidence, in_sample,
  coalesce(
    NOT in_sample AND predicted <> label AND il > ln(classes) AND confidence >= threshold, false
  ) AS contradicted
FROM (SELECT key, label, il, predicted, confidence, in_sample FROM il WHERE {rows})
LEFT JOIN (
  SELECT label AS predicted, avg(exp(-il)) AS threshold FROM il WHERE {rows} AND NOT in_sample GROUP BY label
) USING (predicted)
CROSS JOIN (SELECT count(DISTINCT label) AS classes FROM samples)"""


def why_doubted(ask: Callable[[str], pa.Table], il_model: str) -> str | None:
    """Why an IL model is too weak to call labels wrong by, in a sentence; None where it is not known to be.

    It contradicts far more of the training labels than look wrong where it is most certain, or most of a class, which
    it has rather not learnt.

    Args:
        ask: answers SQL over the views of the workspace, which is of one label a sample.
    """
    rows = ask(f"""\
WITH verdicts AS (
  SELECT key, class, contradicted, confidence, predicted <> label AS other
  FROM (
{judgments(il_model)}
  )
  JOIN (SELECT key, label, class FROM samples WHERE split = 'train') USING (key)
  WHERE NOT in_sample
), certain AS (
  SELECT other FROM verdicts
  ORDER BY confidence DESC, key
  LIMIT (SELECT greatest({FEWEST_CERTAIN}, (count(*) * {MOST_CERTAIN})::BIGINT) FROM verdicts)
)
SELECT
  class, count(*) AS judged, count(*) FILTER (contradicted) AS contradicted,
  (SELECT count(*) FILTER (other) / count(*) FROM certain) AS wrong
FROM verdicts
GROUP BY class
ORDER BY count(*) FILTER (contradicted) / count(*) DESC, class""").to_pylist()
    if not rows:
        return None
    share, wrong = sum(row["contradicted"] for row in rows) / sum(row["judged"] for row in rows), rows[0]["wrong"]
    starved = [
        f"{row['class']} ({row['contradicted']} of {row['judged']})"
        for row in rows
        if row["judged"] >= _ENOUGH and row["contradicted"] > _MOST_OF_A_CLASS * row["judged"]
    ]
    if not starved and share <= max(_MANY, _MORE_THAN_WRONG * wrong):
        return None
    more = f" and {len(starved) - _NAMED} more" if len(starved) > _NAMED else ""
    of_classes = f", most labels of {len(starved)} of {len(rows)} classes: {', '.join(starved[:_NAMED])}{more}"
    return (
        f"IL model {il_model!r} is too weak to call labels wrong by: it contradicts {share:.0%} of them, where about "
        f"{wrong:.0%} look wrong{of_classes if starved else ''}. Look at what it suspects, and drop nothing unseen; "
        "more held-out data, folds or a larger model make a better one"
    )
