"""The results as a table, and what they say of the targets.

python benchmarks/loaders/report.py benchmarks/results/loaders.json
"""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plan import CEILING, OURS, PEERS, STOCK, VIEWS, Measurement

_ONE_BATCH, _SELECTED = 320, 32


class Results:
    """Rounds of every measurement."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.rounds: dict[Measurement, list[dict[str, Any]]] = {}
        for entry in summary["measurements"]:
            values = dict(entry)
            rounds = values.pop("rounds")
            self.rounds[Measurement(**values)] = rounds

    def values(self, measurement: Measurement, what: str) -> list[float]:
        """Of the rounds that did not fail."""
        return [result[what] for result in self.rounds[measurement] if what in result]

    def median(self, measurement: Measurement, what: str) -> float:
        """NaN where all rounds failed."""
        values = self.values(measurement, what)
        return statistics.median(values) if values else float("nan")

    def rates(self, cores: int) -> list[Measurement]:
        """Every variant of every loader with its best number of workers, the fastest first."""
        best: dict[str, Measurement] = {}
        fastest = sorted(self.rounds, key=lambda m: -statistics.median(self.values(m, "rate") or [0.0]))
        for measurement in fastest:
            if measurement.task == "rate" and measurement.cores == cores:
                best.setdefault(measurement.name, measurement)
        return list(best.values())

    def one(self, name: str, cores: int) -> Measurement:
        return next(measurement for measurement in self.rates(cores) if measurement.name == name)

    def best_peer(self, cores: int) -> Measurement:
        return next(measurement for measurement in self.rates(cores) if measurement.loader in PEERS)

    def ratio(self, over: Measurement, under: Measurement) -> float:
        """Median over the rounds of the ratio within a round."""
        pairs = zip(self.rounds[over], self.rounds[under], strict=True)
        ratios = [a["rate"] / b["rate"] for a, b in pairs if "rate" in a and "rate" in b]
        return statistics.median(ratios) if ratios else float("nan")


def worth_measuring(summary: dict[str, Any], plan: Iterable[Measurement]) -> list[Measurement]:
    """Those of a plan that an earlier run does not make idle: of every peer its fastest variant, and the stock one.

    On two cores with every number of workers: which is best depends on what else the machine did.
    """
    results = Results(summary)
    best: set[Measurement] = set()
    for cores in (1, 2):
        fastest: dict[str, Measurement] = {}
        for measurement in results.rates(cores):  # the fastest first
            fastest.setdefault(measurement.loader, measurement)
        best |= {*fastest.values(), results.one(STOCK, cores)}
    names = {measurement.name for measurement in best if measurement.cores == 2}
    return [
        each
        for each in plan
        if each.loader in (OURS, CEILING) or each in best or (each.cores == 2 and each.name in names)
    ]


def report(summary: dict[str, Any]) -> str:
    results = Results(summary)
    machine = summary["machine"]
    loads = ", ".join(f"{load:.1f}" for load in machine["load_at_rounds"])
    lines = [f"{machine['processor']}, {machine['cores']} cores, load before each round {loads}", ""]
    for cores in (1, 2):
        lines += [*_table(results, cores), ""]
    return "\n".join([*lines, *_trained(results), "", *_targets(results)])


def _table(results: Results, cores: int) -> list[str]:
    best, ceiling = results.best_peer(cores), results.one(f"{CEILING} simplejpeg", cores)
    on = "1 core" if cores == 1 else f"{cores} cores"
    head = (on, "workers", "images/s", "range", "CPU µs/image", "others", "of the best peer", "of the ceiling")
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in results.rates(cores):
        if row.variant.endswith("+32"):
            continue
        rates = results.values(row, "rate")
        if not rates:
            lines.append(f"| {row.name} | {row.workers} | failed: {results.rounds[row][0].get('error')} | | | | | |")
            continue
        cpu, others = results.median(row, "cpu_us"), results.median(row, "others")
        lines.append(
            f"| {row.name} | {row.workers} | {statistics.median(rates):,.0f} | {min(rates):,.0f}–{max(rates):,.0f} | "
            f"{cpu:.0f} | {others:.2f} | {results.ratio(row, best):.2f} | {results.ratio(row, ceiling):.2f} |"
        )
    return lines


def _trained(results: Results) -> list[str]:
    lines = ["One trained sample (10 candidates loaded, the selected one at full size), one core:"]
    for spec in ("full", *VIEWS):
        row = results.one(f"{OURS} {spec}+32", 1)
        lines.append(
            f"- {spec}: {1e6 / results.median(row, 'rate'):,.0f} µs, CPU {results.median(row, 'cpu_us'):,.0f} µs"
        )
    stock = results.one(STOCK, 1)
    per_trained = _ONE_BATCH / _SELECTED
    lines.append(
        f"- {STOCK}, ten images: {per_trained * 1e6 / results.median(stock, 'rate'):,.0f} µs, CPU "
        f"{per_trained * results.median(stock, 'cpu_us'):,.0f} µs"
    )
    return lines


def _targets(results: Results) -> list[str]:
    lines = ["| target | wanted | 1 core | 2 cores | |", "| --- | ---: | ---: | ---: | --- |"]

    def judge(text: str, wanted: str, values: list[float], met: list[bool], form: str) -> None:
        shown = " | ".join(format(value, form) for value in values)
        lines.append(f"| {text} | {wanted} | {shown} | {'met' if all(met) else 'MISSED'} |")

    def ratio(text: str, least: float, pairs: list[tuple[Measurement, Measurement]]) -> None:
        values = [results.ratio(*pair) for pair in pairs]
        judge(text, f"≥ {least}", values, [value >= least for value in values], ".2f")

    both = (1, 2)
    full = {cores: results.one(f"{OURS} full", cores) for cores in both}
    best = {cores: results.best_peer(cores) for cores in both}
    for spec in VIEWS:
        pairs = [(results.one(f"{OURS} {spec}", cores), best[cores]) for cores in both]
        ratio(f"thumbnails {spec} / best peer ({best[2].name})", 4, pairs)
    ceiling = f"{CEILING} simplejpeg"
    ratio("full size / the C decoder's ceiling", 0.9, [(full[cores], results.one(ceiling, cores)) for cores in both])
    ratio("full size / best peer", 1, [(full[cores], best[cores]) for cores in both])
    ratio(f"full size / {STOCK}", 3.5, [(full[cores], results.one(STOCK, cores)) for cores in both])
    for spec in ("full", *VIEWS):
        rows = [results.one(f"{OURS} {spec}", cores) for cores in both]
        shares = [results.median(row, "join_us") / results.median(row, "cpu_us") for row in rows]
        judge(f"join's share of CPU time, {spec}", "≤ 1%", shares, [share <= 0.01 for share in shares], ".2%")
    for spec in ("full", *VIEWS):
        measured = Measurement(task="first", loader=OURS, variant=spec, cores=2)
        seconds = results.median(measured, "first")
        lines.append(
            f"| first super-batch, {spec} | < 1 s | | {seconds:.2f} s | {'met' if seconds < 1 else 'MISSED'} |"
        )
    return lines


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())))
