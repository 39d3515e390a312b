"""Tables of what reading texts costs, and of what selecting them came to."""

from figures import result, table


def text_rates_table() -> str:
    """Tokenized texts that a CPU-second reads, and the stream's rate over that of each way with `datasets`."""
    ours, *others = result("text_rates")["readers"]
    rows = [["the stream, joined, shuffled, padded", f"{ours['rate']:,.0f}", ""]]
    rows += [
        [f"`datasets`: {each['reader']}", f"{each['rate']:,.0f}", f"{ours['rate'] / each['rate']:.2f}"]
        for each in others
    ]
    return table(["reader", "texts per CPU-second", "the stream's over it"], rows)
