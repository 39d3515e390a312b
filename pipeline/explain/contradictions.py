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

from typing import Final

from rhostream.pipeline.sql import quote

#: Of a pair: the share of the captions it was compared with that the reference model finds as much like the image.
BEATEN_BY: Final = "(rank - 1) / greatest(compared, 1)"
_CONTRADICTED_ABOVE: Final = 0.25


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
