"""60 mutated tables of texts: no traceback, no hang, and every row is a sample or a reject."""

from pathlib import Path

from helpers import table_fuzz

TRIALS = 60
#: Trials that failed in the sweep of benchmarks/mutated_tables.py, and have not since: names of columns, not UTF-8.
MENDED = (44, 259, 572)


def test_mutated_tables_are_accounted_for_or_told(tmp_path: Path) -> None:
    trials = list(table_fuzz.run(tmp_path, [*range(TRIALS), *MENDED]))
    failed = [trial for trial in trials if trial.outcome in table_fuzz.FAILURES]
    assert not failed, "\n".join(map(str, failed))
    assert sum(trial.outcome == "kept" for trial in trials) > TRIALS // 3
    assert {trial.form for trial in trials} == set(table_fuzz.FORMS)
