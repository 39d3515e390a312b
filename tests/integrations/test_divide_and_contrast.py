"""The example of DnC: base model, clusters, experts and student, a few steps of each."""

import json

from helpers.dropin import run_example
from helpers.pair_corpus import write_pairs_with_reference


def test_example_divides_and_contrasts(tmp_path, monkeypatch):
    workspace = write_pairs_with_reference(tmp_path / "w")
    settings = ("--steps", 6, "--clusters", 2, "--batch-size", 16, "--label", "color")
    run_example("divide_and_contrast", monkeypatch, workspace.location, *settings, "--output", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["base"], found["experts"]) == (2, 2)
    assert sum(found["cluster_sizes"]) == 162
    assert set(found["accuracy"]) == {"untrained", "SimCLR", "DnC"}
    assert all(0.3 < share <= 1 for share in found["accuracy"].values())  # of four colors, which pixels tell
    assert all(seconds > 0 for seconds in found["cpu_seconds"].values())
