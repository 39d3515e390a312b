"""Which captions are likely not those of their images."""

from rhostream.pipeline.sql import quote


def mismatched(il: str, *, split: str | None, has_truth: bool, limit: int | None) -> str:
    """Pairs by the share of other captions that the reference model finds as fitting as the own one, highest first.

    Args:
        il: name of the reference model.
        has_truth: does `samples` have the column `mismatched`? Then precision and recall of the rows so far are told.
        limit: rows, at most; None for all.
    """
    of_split = "" if split is None else f" AND split = {quote(split)}"
    truth = ", mismatched" if has_truth else ""
    chosen = f"""SELECT key, source, text, similarity, rank, compared,
  (rank - 1) / greatest(compared, 1) AS beaten_by{truth}
FROM il JOIN samples USING (key)
WHERE il_model = {quote(il)} AND NOT in_sample{of_split}"""
    order, rows = "beaten_by DESC, similarity, key", "" if limit is None else f"\nLIMIT {limit}"
    if not has_truth:
        return f"{chosen}\nORDER BY {order}{rows}"
    so_far = f"OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
    return f"""SELECT *, avg(mismatched::INTEGER) {so_far} AS precision,
  sum(mismatched::INTEGER) {so_far} / sum(mismatched::INTEGER) OVER () AS recall
FROM ({chosen})
ORDER BY {order}{rows}"""
