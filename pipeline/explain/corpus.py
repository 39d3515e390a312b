"""Questions about the corpus, which need no run."""

from rhostream.pipeline.explain.scope import Scope


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


def rejects(scope: Scope) -> str:
    return f"""\
SELECT
  reason, count(*) AS entries, count(*) / ((SELECT count(*) FROM samples) + sum(count(*)) OVER ()) AS share_of_corpus,
  min(source) AS example, arg_min(detail, source) AS detail
FROM rejects
GROUP BY reason
ORDER BY entries DESC, reason{scope.limited}"""
