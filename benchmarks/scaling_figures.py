"""Tables of docs/scaling.md: listings, streams over large indexes, ranks, engines."""

from figures import result, table


def listing_table() -> str:
    """What a listing takes, by the number of entries, and what the slope between the last two makes of 10^9."""
    found = result("listing")["listing"]
    counts = sorted(map(int, found))
    one, two = counts[-2:]

    def slope(figure: str) -> float:
        return float((found[str(two)][figure] - found[str(one)][figure]) / (two - one))

    hours = slope("cpu_seconds") * 1e9 / 3600
    peaks = [found[str(count)]["peak_memory_mb"] for count in counts]
    scratch = found[str(two)]["bytes_an_entry"]
    rows = [
        ["CPU time", *(f"{found[str(count)]['cpu_seconds']:.0f} s" for count in counts), f"{hours:.1f} h"],
        ["memory at its peak", *(f"{peak:.0f} MB" for peak in peaks), "not measured"],
        [
            "files on the way",
            *(f"{found[str(count)]['bytes_an_entry'] * count / 1e6:.0f} MB" for count in counts),
            f"{scratch:.0f} GB",
        ],
    ]
    return table(["", *(f"{count:,} entries" for count in counts), "1,000,000,000, by the slope"], rows)


def opening_table() -> str:
    """What opening a stream takes, by the number of rows."""
    found = result("listing")["opening"]
    columns = sorted(found, key=int)
    rows = [
        ["shards", *(f"{found[n]['shards']:,}" for n in columns)],
        ["first super-batch after", *(f"{found[n]['seconds_to_first_super_batch']:.2f} s" for n in columns)],
        ["memory at its peak", *(f"{found[n]['peak_memory_mb']:.0f} MB" for n in columns)],
        ["of these before", *(f"{found[n]['memory_before_mb']:.0f} MB" for n in columns)],
    ]
    return table(["", *(f"{int(n):,} rows" for n in columns)], rows)


def exchange_table() -> str:
    """What ranks tell one another in a step, as measured, and the bytes that as many as 1,024 would get."""
    found = result("ranks")["results"]
    sent = max(row["bytes_a_step"] for row in found.values())
    rows = []
    for number, row in found.items():
        if number != "1":
            received = f"{(int(number) - 1) * row['bytes_a_step'] / 1000:.1f} kB"
            rows.append([number, f"{row['messages_a_step']:.0f}", received, f"{1000 * row['seconds_a_step']:.1f} ms"])
    rows += [[f"{number:,}", "", f"{(number - 1) * sent / 1e6:.1f} MB", ""] for number in (64, 1024)]
    return table(["ranks", "messages", "received by each rank", "seconds"], rows)


def staleness_table() -> str:
    """Steps and CPU-seconds to an accuracy on MNIST with wrong labels, by how old the scores are."""
    found = result("staleness")
    rows = []
    for staleness, seeds in found["to_target"].items():
        rows.append(
            [
                staleness,
                *(_by_seed(seeds, *each) for each in (("steps", 0), ("cpu_seconds", 1), ("trainer_cpu_seconds", 1))),
            ]
        )
    to = f"to {found['target']:.0%}, by seed"
    return table(["scores are so many steps old", f"steps {to}", "CPU-seconds", "of these beside scoring"], rows)


def _by_seed(seeds: list[dict[str, float] | None], name: str, digits: int) -> str:
    return ", ".join("never" if each is None else f"{each[name]:.{digits}f}" for each in seeds)


def engines_table() -> str:
    """Samples a second of one core by stage and engine, and what others have published."""
    found = result("engines")
    rows = []
    for stage, local in found["local"].items():
        pairs = zip(found["rounds"]["local"], found["rounds"]["ray"], strict=True)
        ratios = sorted(on_ray[stage] / alone[stage] for alone, on_ray in pairs)
        told = f"{found['ratio'][stage]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append([stage, f"{local:,.0f}", f"{found['ray'][stage]:,.0f}", told])
    published = [[what, "", "", told] for what, told in found["published"]]
    return table(["samples a second of one core", "local", "Ray", "Ray / local, or published"], [*rows, *published])


def actor_cost() -> str:
    """What an actor takes beside its units."""
    found = result("engines")["actor"]
    return f"{found['idle_ms_a_second']:.0f} ms of a core a second and {found['ms_a_call']:.1f} ms a unit"


def engine_kills() -> str:
    """How often actors, drivers and nodes were killed, and what became of the bytes."""
    found = result("ray_kills")
    stages = found["stages"]
    if any(one["failed"] for one in (*stages, found["raylets"])):
        return "FILES DIFFERED after kills"
    actors = sum(one["ended"]["actor"] for one in stages)
    drivers = sum(sum(one["ended"].values()) for one in stages) - actors
    told = f"{actors} actors and {drivers} drivers of {len(stages)} stages, and {found['raylets']['killed']} nodes"
    return f"{told}, were ended at random moments: every file was, byte for byte, that of one process without Ray"
