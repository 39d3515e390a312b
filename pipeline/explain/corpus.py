"""Questions about the corpus, which need no run."""

from collections.abc import Sequence

from rhostream.pipeline.explain.copies import Pair
from rhostream.pipeline.explain.scope import Scope
from rhostream.pipeline.sql import quote


def duplicates(scope: Scope) -> str:
    label, name, content = scope.label_column, scope.class_column, scope.content_column
    labels, names = ("captions", "texts") if scope.task == "pairs" else ("labels", "classes")
    return f"""\
SELECT
  {content}, count(*) AS copies, count(DISTINCT {label}) AS {labels}, list({name} ORDER BY key) AS {names},
  list(split ORDER BY key) AS splits, list(key ORDER BY key) AS keys, list(source ORDER BY key) AS sources
FROM samples
WHERE {content} IN (
  SELECT {content} FROM samples
  GROUP BY {content}
  HAVING min({label}) <> max({label}) AND bool_or({scope.of_class}) AND bool_or({scope.of_split})
)
GROUP BY {content}
ORDER BY copies DESC, {content}{scope.limited}"""


def copies(scope: Scope, pairs: Sequence[Pair]) -> str:
    """Images that look the same, those under other labels first, then those that straddle the split."""
    label, name = scope.label_column, scope.class_column
    first, second = (", ".join(map(quote, keys)) for keys in ([p.first for p in pairs], [p.second for p in pairs]))
    of_class = f"(SELECT key FROM samples WHERE {scope.of_class})"
    return f"""\
SELECT
  pairs.likeness, pairs.first, pairs.second, one.{name} AS first_{name}, other.{name} AS second_{name},
  one.split AS first_split, other.split AS second_split, one.source AS first_source, other.source AS second_source
FROM (
  SELECT
    unnest([{first}]::VARCHAR[]) AS first,
    unnest([{second}]::VARCHAR[]) AS second,
    unnest([{", ".join(f"{p.likeness:.3f}" for p in pairs)}]::DOUBLE[]) AS likeness
) AS pairs
JOIN samples AS one ON one.key = pairs.first
JOIN samples AS other ON other.key = pairs.second
WHERE pairs.first IN {of_class} OR pairs.second IN {of_class}
ORDER BY
  one.{label} = other.{label}, one.split = other.split, pairs.likeness DESC, pairs.first, pairs.second{scope.limited}"""


def rejects(scope: Scope) -> str:
    return f"""\
SELECT
  reason, count(*) AS entries, count(*) / ((SELECT count(*) FROM samples) + sum(count(*)) OVER ()) AS share_of_corpus,
  min(source) AS example, arg_min(detail, source) AS detail
FROM rejects
GROUP BY reason
ORDER BY entries DESC, reason{scope.limited}"""
