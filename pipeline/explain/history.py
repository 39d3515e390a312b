"""What became of every sample in a run: its rows of the ledger as one."""

from typing import Final

from rhostream.pipeline.sql import quote

#: Steps from, to (both included); None leaves that end open.
Steps = tuple[int | None, int | None]
ALL_STEPS: Final[Steps] = (None, None)


def in_steps(steps: Steps) -> str:
    """An SQL condition on `step`."""
    first, last = steps
    conditions = [f"step >= {first:d}"] if first is not None else []
    conditions += [f"step <= {last:d}"] if last is not None else []
    return " AND ".join(conditions) or "true"


def sample_history(run: str, steps: Steps = ALL_STEPS, *, several_ranks: bool = True) -> str:
    """SQL: one row per sample that the run drew in these steps.

    Columns: key; drawn, selected, scored, filtered, il_missing, set_aside, unreadable: how often; latest_loss (nats),
    latest_correct, latest_selected: when it was last scored; il (nats, of the table that the run joined), NULL where
    there is none.

    Of all steps the table `history` tells, which has a row per sample and rank; of some, the rows of the ledger are
    counted, which takes about 1 s of one core per million candidates in these steps.
    """
    if steps == ALL_STEPS and not several_ranks:
        return f"""\
SELECT
  key, drawn, selected, scored, filtered, il_missing, set_aside, unreadable,
  latest_loss, latest_correct, latest_selected, il
FROM history
WHERE run = {quote(run)}"""
    if steps == ALL_STEPS:
        return f"""\
SELECT
  key,
  sum(drawn)::BIGINT AS drawn,
  sum(selected)::BIGINT AS selected,
  sum(scored)::BIGINT AS scored,
  sum(filtered)::BIGINT AS filtered,
  sum(il_missing)::BIGINT AS il_missing,
  sum(set_aside)::BIGINT AS set_aside,
  sum(unreadable)::BIGINT AS unreadable,
  arg_max(latest_loss, scored_step) AS latest_loss,
  arg_max(latest_correct, scored_step) AS latest_correct,
  arg_max(latest_selected, scored_step) AS latest_selected,
  max(il) AS il
FROM history
WHERE run = {quote(run)}
GROUP BY key"""
    return f"""\
SELECT
  key,
  count(*) AS drawn,
  count(*) FILTER (selected) AS selected,
  count(score) AS scored,
  count(*) FILTER (reason = 'filtered') AS filtered,
  count(*) FILTER (reason = 'il_missing') AS il_missing,
  count(*) FILTER (reason IN ('validation', 'not_in_core_set')) AS set_aside,
  count(*) FILTER (reason = 'unreadable') AS unreadable,
  arg_max(loss, step) AS latest_loss,
  arg_max(correct, step) AS latest_correct,
  arg_max(selected, step) FILTER (score IS NOT NULL) AS latest_selected,
  max(il) AS il
FROM ledger
WHERE run = {quote(run)} AND {in_steps(steps)}
GROUP BY key"""
