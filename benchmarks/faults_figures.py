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
    rows = []
    for name, counts in result("faults")["artifacts"].items():
        failed = sum(count for outcome, count in counts.items() if outcome not in ("told", "same"))
        cells = (sum(counts.values()), counts.get("told", 0), counts.get("same", 0), failed)
        rows.append([f"`{name.removeprefix('w/')}`", *(f"{count:,}" for count in cells)])
    return table(["artifact", "trials", "told", "same", "failed"], rows)


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
