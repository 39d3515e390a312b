"""Which labels an IL model contradicts: the one definition, for `rho explain`, `rho export` and the report.

A label is contradicted by a model that never saw the sample where all of this holds:

1. It predicts another class.
2. It finds the given label less likely than blind chance: IL > ln(classes).
3. Its probability of the class that it predicts is at least that class's own threshold: the mean of that probability
   over the samples that bear the class's label (confident learning: Northcutt, Jiang & Chuang, JAIR 70, 2021, eq. 2).

By the third, a class that the model overrates, and so predicts for others, condemns no sample on the strength of that.
"""

from rhostream.pipeline.sql import quote


def judgments(il_model: str | None, *, multi_label: bool = False) -> str:
    """SQL: what the IL model says of each sample that it has scored.

    Columns: key, il (nats), predicted (label), confidence, in_sample, contradicted.

    Args:
        il_model: None gives no row.
        multi_label: is the corpus? Then predicted and confidence are NULL, and nothing is contradicted.
    """
    rows = f"il_model = {quote(il_model)}" if il_model is not None else "false"
    if multi_label:
        return f"""\
SELECT key, il, NULL::INTEGER AS predicted, NULL::FLOAT AS confidence, in_sample, false AS contradicted
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
