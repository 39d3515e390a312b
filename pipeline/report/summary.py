"""What the report says in plain sentences: which classes are noisy, what was skipped, whether it paid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rhostream.errors import Stage
from rhostream.pipeline.explain import REASONS
from rhostream.pipeline.report.data import ReportData
from rhostream.pipeline.report.figures import Table, table
from rhostream.pipeline.report.formatting import count, flops, listed, percent, seconds
from rhostream.pipeline.report.runs import UNITS, ReportedRun, Unit, measure_of, spent

_ENOUGH: Final = 20  # samples for a class to be called noisy or clean
_NAMED: Final = 3
_MOST_CAPTIONS: Final = 0.5  # a model that knows nothing finds all of them another's
_NOT_SKIPPED: Final = ("selected", "never_drawn")
_UNSCORED: Final = f"No IL model has scored these out of sample: {Stage.IL_TRAIN}, then {Stage.IL_SCORE}."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An answer to one question.

    Attributes:
        headline: the answer in a few words.
        sentences: what bears it out.
        classes: names of classes that it speaks of, to look at.
    """

    question: str
    headline: str
    sentences: tuple[str, ...]
    classes: tuple[str, ...] = ()


def corpus_sentence(data: ReportData) -> str:
    """Entries = samples + rejects, and the splits."""
    counts = data.corpus.counts
    rejects = sum(row["entries"] for row in data.answers["rejects"].rows)
    splits: dict[str, int] = {}
    for shard in data.corpus.shards:
        splits[shard.split] = splits.get(shard.split, 0) + shard.rows
    samples = sum(splits.values())
    entries = counts.get("entries", samples + rejects)
    are = "image-text pairs" if data.corpus.task == "pairs" else f"samples of {len(data.corpus.classes)} classes"
    return (
        f"{count(entries)} source entries gave {count(samples)} {are} ("
        f"{', '.join(f'{count(splits[split])} {split}' for split in sorted(splits, key=lambda name: -splits[name]))}); "
        f"{count(rejects)} were refused."
    )


def findings(data: ReportData) -> tuple[Finding, ...]:
    """The three answers, in the order in which a reader asks."""
    noise = wrong_captions if data.corpus.task == "pairs" else noisy_classes
    return noise(data), skipped(data), paid(data)


def noisy_classes(data: ReportData) -> Finding:
    question = "Which classes are noisy?"
    if data.corpus.task == "multi_label":
        return Finding(
            question=question,
            headline="Not told",
            sentences=("A verdict on one of a sample's many labels would need the probabilities of each.",),
        )
    rows = [row for row in data.answers["classes"].rows if row["judged"]]
    if not rows:
        return Finding(
            question=question,
            headline="Not known yet",
            sentences=(_UNSCORED,),
        )
    judged, contradicted = _total(rows, "judged"), _total(rows, "contradicted")
    large = [row for row in rows if row["judged"] >= _ENOUGH] or rows
    ranked = sorted(large, key=lambda row: -row["contradicted"] / row["judged"])
    noisy = [row for row in ranked[:_NAMED] if row["contradicted"]]
    clean = ranked[_NAMED:][: -_NAMED - 1 : -1]
    sentences = [
        f"The IL model, which never saw them, firmly contradicts {count(contradicted)} of {count(judged)} labels "
        f"({percent(contradicted / judged)}).",
        f"It predicts {percent(data.right())} of all labels, right or wrong: so far can its verdicts be trusted.",
    ]
    if data.doubt is not None:
        sentences.insert(0, f"{data.doubt}.")
    if clean:
        sentences.append(f"Least contradicted: {listed([_noise(row) for row in clean])}.")
    known = _total(rows, "truth_known")
    if known:
        wrong, found = _total(rows, "wrong"), _total(rows, "wrong_and_contradicted")
        sentences.append(_truth_of(known, wrong, found, contradicted))
    headline = f"{listed([_noise(row) for row in noisy])}" if noisy else "No label is contradicted"
    if data.doubt is not None:
        headline = "Not known: the IL model is too weak to tell"
    return Finding(
        question=question,
        headline=headline,
        sentences=tuple(sentences),
        classes=() if data.doubt is not None else tuple(row["class"] for row in noisy),
    )


def wrong_captions(data: ReportData) -> Finding:
    question = "Which captions are wrong?"
    rows = data.answers["classes"].rows
    judged, contradicted, beaten = (_total(rows, column) for column in ("judged", "contradicted", "beaten"))
    if not judged:
        return Finding(question=question, headline="Not known yet", sentences=(_UNSCORED,))
    sentences = [
        f"The reference model finds a quarter of the other captions more like the image in {count(contradicted)} of "
        f"{count(judged)} pairs ({percent(contradicted / judged)}): these captions are contradicted.",
        # Another's caption is as likely above as below the middle, a true one hardly ever below (Storey, 2002).
        f"In {percent(beaten / judged)} half of them are, as in every second pair whose caption is another's: "
        f"so about {percent(min(1.0, 2 * beaten / judged))} are.",
        f"For {percent(data.right())} of the images no other caption is more similar: so far can its verdicts be "
        "trusted.",
    ]
    if known := _total(rows, "truth_known"):
        sentences.append(_truth_of(known, _total(rows, "wrong"), _total(rows, "wrong_and_contradicted"), contradicted))
    wrong = min(1.0, 2 * beaten / judged)
    headline = f"About {percent(wrong)} are another's"
    if wrong > _MOST_CAPTIONS:
        headline = "Not known: most captions are another's, or the reference model is too weak to tell"
    return Finding(question=question, headline=headline, sentences=tuple(sentences))


def _truth_of(known: int, wrong: int, found: int, contradicted: int) -> str:
    return (
        f"The truth is known here: {percent(wrong / known)} are wrong. Of those contradicted, "
        f"{percent(found / contradicted if contradicted else None)} really are; of the wrong ones, "
        f"{percent(found / wrong if wrong else None)} are contradicted."
    )


def _noise(row: dict[str, Any]) -> str:
    return f"{row['class']} ({percent(row['contradicted'] / row['judged'])})"


def _total(rows: Sequence[dict[str, Any]], column: str) -> int:
    return sum(row[column] or 0 for row in rows)


def skipped(data: ReportData) -> Finding:
    question = "What was skipped?"
    if data.run is None:
        return Finding(
            question=question,
            headline="Nothing yet",
            sentences=(f"No run has chosen among the samples: {Stage.TRAIN}.",),
        )
    totals = {row["reason"]: row["samples"] for row in data.answers["reasons"].rows}
    whole = sum(totals.values())
    passed = {reason: samples for reason, samples in totals.items() if reason not in _NOT_SKIPPED}
    share = sum(passed.values()) / whole if whole else 0.0
    by_weight = sorted(passed, key=lambda reason: -passed[reason])
    sentences = [
        f"{percent(passed[reason] / whole)} of all: {REASONS.get(reason, reason)} ({reason.replace('_', ' ')})."
        for reason in by_weight[:_NAMED]
    ]
    if totals.get("never_drawn"):
        sentences.append(f"{percent(totals['never_drawn'] / whole)} were never drawn as candidates.")
    rows = data.answers["classes"].rows
    drawn, selected = _total(rows, "drawn"), _total(rows, "selected")
    if drawn:
        sentences.append(
            f"{data.run.name} drew {count(drawn)} candidates and trained on {count(selected)} of them "
            f"({percent(selected / drawn)}); a sample counts as skipped below half of that rate."
        )
    return Finding(
        question=question,
        headline=f"{percent(share)} of {count(whole)} training samples",
        sentences=tuple(sentences),
    )


def paid(data: ReportData) -> Finding:
    question = "Did it pay?"
    run, baseline = data.run, _baseline(data)
    if run is None or not run.curve:
        return Finding(question=question, headline="Not known", sentences=("No run was evaluated.",))
    if run.select == "uniform":
        sentence = f"{run.name} samples uniformly, which is what others are measured by: name another run first."
        return Finding(question=question, headline="Not known", sentences=(sentence,))
    if baseline is None:
        return Finding(
            question=question,
            headline="Not known",
            sentences=(
                f"{run.name} reached {_accuracy(run.best_accuracy)}, and there is no run of uniform sampling to "
                "compare with: train one with --select uniform.",
            ),
        )
    aim = min(run.best_accuracy, baseline.best_accuracy)
    ours, theirs = run.first_reaching(aim), baseline.first_reaching(aim)
    assert ours is not None
    assert theirs is not None
    verdicts = {unit: spent(ours, unit) < spent(theirs, unit) for unit in UNITS}
    won, lost = ([_UNIT_WORDS[unit] for unit in UNITS if verdicts[unit] is side] for side in (True, False))
    headline = "Yes" if not lost else "No" if not won else f"Yes in {listed(won)}, no in {listed(lost)}"
    sentences = [
        f"To reach {_accuracy(aim)}, {run.name} took {_spent(ours, unit)} where {baseline.name} took "
        f"{_spent(theirs, unit)} ({_ratio(spent(ours, unit), spent(theirs, unit))})."
        for unit in UNITS
    ]
    shared = sum(ours[f"seconds_{cost}"] or 0.0 for cost in ("il_train", "il_score"))
    if shared:
        sentences.append(
            f"{seconds(shared)} of these seconds are the IL model's, which further runs can share (`--il-runs`); "
            f"without it {run.name} took {seconds(spent(ours, 'seconds') - shared)}."
        )
    sentences.append(
        f"In the end {run.name} had {_accuracy(run.accuracies[-1])} after {count(run.steps)} steps, "
        f"{baseline.name} {_accuracy(baseline.accuracies[-1])} after {count(baseline.steps)}."
    )
    return Finding(question=question, headline=headline, sentences=tuple(sentences))


_UNIT_WORDS: Final[dict[Unit, str]] = {"steps": "steps", "seconds": "seconds", "flops": "FLOPs"}


def comparison(data: ReportData) -> Table | None:
    """What every run took to the accuracy that the baseline and the pictured run both reach; None for a single run."""
    runs, baseline = [run for run in data.runs if run.curve], _baseline(data)
    if len(runs) < 2:
        return None
    pair = [run for run in (data.run, baseline) if run is not None and run.curve] or runs
    aim = min(run.best_accuracy for run in pair)
    rows, words = [], measure_of(runs)
    for run in runs:
        line = run.first_reaching(aim)
        took = [_spent(line, unit) if line is not None else "never" for unit in UNITS]
        rows.append((run.name, run.select, *took, _accuracy(run.accuracies[-1])))
    return table(
        ("run", "selection", *(f"{_UNIT_WORDS[unit]} to {_accuracy(aim)}" for unit in UNITS), f"final {words}"),
        rows,
        text=2,
    )


def _baseline(data: ReportData) -> ReportedRun | None:
    """The first run of uniform sampling, other than the one that is looked at."""
    return next((run for run in data.runs if run.select == "uniform" and run.curve and run is not data.run), None)


def _spent(line: dict[str, Any], unit: Unit) -> str:
    value = spent(line, unit)
    return f"{count(value)} steps" if unit == "steps" else seconds(value) if unit == "seconds" else flops(value)


def _accuracy(share: float) -> str:
    return f"{100 * share:.1f}%"


def _ratio(ours: float, theirs: float) -> str:
    if not ours or not theirs:
        return "nothing to compare"
    factor = max(ours, theirs) / min(ours, theirs)
    return "as much" if factor < 1.05 else f"{factor:.1f} times {'fewer' if ours < theirs else 'more'}"
