"""Tables of what was tried to break: damaged artifacts, ended commands."""

from figures import result, table


def faults_summary() -> str:
    """How many trials, and how many failed in which way."""
    found = result("faults")
    failed: dict[str, int] = {}
    for trial in found["failed"]:
        failed[trial["outcome"]] = failed.get(trial["outcome"], 0) + 1
    kinds = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(failed.items())) or "none"
    ways = "another answer without a word, a traceback, or no end in 10 s"
    mended = len(found.get("mended", ()))
    again = f" {mended} that had failed at first fail no more, and are counted as they end now." if mended else ""
    return f"Of {found['trials']:,} trials failed ({ways}): {kinds}.{again}"


def faults_table() -> str:
    """What came of the trials, by artifact."""
    counts = {f"`{name.removeprefix('w/')}`": each for name, each in result("faults")["artifacts"].items()}
    return _by_outcome("artifact", counts, ("told", "same"))


def _by_outcome(what: str, counts: dict[str, dict[str, int]], expected: tuple[str, str]) -> str:
    """Of each row the trials, those that ended in either way that they may, and all others."""
    rows = []
    for name, outcomes in counts.items():
        ended = [outcomes.get(outcome, 0) for outcome in expected]
        trials = sum(outcomes.values())
        rows.append([name, *(f"{count:,}" for count in (trials, *ended, trials - sum(ended)))])
    return table([what, "trials", *expected, "failed"], rows)


def mutated_tables_summary() -> str:
    """How many mutated tables there were, and how many were not accounted for."""
    found = result("mutated_tables")
    return f"Of {found['trials']:,} trials failed: {len(found['failed']) or 'none'}"


def mutated_tables_table() -> str:
    """What came of mutated tables of texts, by their form."""
    counts = {f"`.{form}`": each for form, each in result("mutated_tables")["forms"].items()}
    return _by_outcome("table", counts, ("kept", "told"))


def kills_table() -> str:
    """What became of each command that was ended by signals."""
    rows = []
    for one in result("kills")["commands"]:
        if one["failed"]:
            rows.append([f"`rho {one['asked']}`", "", "", "", "failed"])
            continue
        ended = one["ended"]
        counts = ", ".join(str(ended[name]) for name in ("SIGKILL", "SIGTERM", "SIGINT"))
        rows.append([f"`rho {one['asked']}`", counts, f"{one['at_work']}", f"{one['finished']}", "same"])
    return table(["command", "SIGKILL, SIGTERM, SIGINT", "at work", "done before", "result"], rows)


def ray_kills_table() -> str:
    """What became of each stage on Ray whose actors and drivers were ended."""
    rows = []
    for one in result("ray_kills")["stages"]:
        if one["failed"]:
            rows.append([f"`rho {one['stage']}`", "", "", "", "failed"])
            continue
        ended = one["ended"]
        counts = ", ".join(str(ended[name]) for name in ("SIGKILL", "SIGTERM", "SIGINT"))
        told = (str(ended["actor"]), counts, str(one["finished"]), "same")
        rows.append([f"`rho {one['stage']}`", *told])
    heads = ("actors killed", "drivers: SIGKILL, SIGTERM, SIGINT", "done before", "result")
    return table(["stage on Ray", *heads], rows)


def many_tars_table() -> str:
    """CPU-seconds of each command by the number of tars, and what the slope makes of 10,000."""
    found = result("many_tars")
    first, *_, last = found["runs"]
    rows = []
    for few, many in zip(first["answers"], last["answers"], strict=True):
        slope = max(0.0, many["cpu_seconds"] - few["cpu_seconds"]) / (last["tars"] - first["tars"])
        projected = many["cpu_seconds"] + slope * (10_000 - last["tars"])
        cells = (few["cpu_seconds"], many["cpu_seconds"], many["peak_memory_gib"], 1000 * slope, projected)
        rows.append([f"`rho {few['asked']}`", *(f"{cell:.1f}" for cell in cells)])
    heads = (f"{run['tars']:,} tars, CPU-s" for run in (first, last))
    return table(["command", *heads, "GiB", "ms a tar", "10,000 tars (projected)"], rows)


def many_classes_figures() -> str:
    """What a manifest of many classes costs."""
    found = result("many_tars")
    costs = {one["asked"]: one for one in found["answers"]}
    return (
        f"Of a table whose manifest names {found['classes']:,} classes `rho shards` took "
        f"{costs['shards']['cpu_seconds']:.1f} and `rho report` {costs['report']['cpu_seconds']:.1f} CPU-s"
    )
