"""Which captions are likely not those of their images."""

from rhostream.pipeline.explain.contradictions import BEATEN_BY
from rhostream.pipeline.explain.history import sample_history
from rhostream.pipeline.explain.scope import Scope, indented
from rhostream.pipeline.sql import quote


def mismatched(scope: Scope, *, has_truth: bool) -> str:
    """Pairs by the share of other captions that the reference model finds as fitting as the own one, highest first.

    Where a run is named, without those whose caption its model has come to find.

    Args:
        has_truth: does `samples` have the column `mismatched`? Then precision and recall of the rows so far are told.
    """
    truth = ", mismatched" if has_truth else ""
    more, join, keep = "", "", ""
    if scope.run:
        history = sample_history(scope.run, scope.steps, several_ranks=scope.several_ranks)
        more = ", latest_loss, latest_correct, drawn, selected"
        join = f"\nLEFT JOIN (SELECT key{more} FROM (\n{indented(history)}\n)) USING (key)"
        keep = " AND NOT coalesce(latest_correct, false)"
    chosen = f"""SELECT key, {scope.shown_columns}, text, similarity, rank, compared,
  {BEATEN_BY} AS beaten_by{more}{truth}
FROM il JOIN {scope.samples} AS samples USING (key){join}
WHERE il_model = {quote(scope.il_model or "")} AND NOT in_sample AND {scope.of_split}{keep}"""
    order = "beaten_by DESC, similarity, key"
    if not has_truth:
        return f"{chosen}\nORDER BY {order}{scope.limited}"
    so_far = f"OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
    return f"""SELECT *, avg(mismatched::INTEGER) {so_far} AS precision,
  sum(mismatched::INTEGER) {so_far} / sum(mismatched::INTEGER) OVER () AS recall
FROM ({chosen})
ORDER BY {order}{scope.limited}"""
