"""The report: one HTML file that holds all it shows, and asks no network for anything."""

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from rhostream.loaders.decode import excerpt
from rhostream.loaders.storage import OutputFile, Workspace
from rhostream.pipeline.comparison import RUN_COLORS
from rhostream.pipeline.config import Metric
from rhostream.pipeline.explain import REASONS
from rhostream.pipeline.report import figures, run_figures, summary
from rhostream.pipeline.report.data import ReportData, gather
from rhostream.pipeline.report.formatting import count, number, percent
from rhostream.pipeline.report.pictures import CHARACTERS
from rhostream.plain_text import hide_secrets, told

_TEMPLATES: Final = "rhostream.pipeline.report"
_SHOWN: Final = 14  # pictures of a gallery before more are asked for: two rows on a desk, seven on a phone

#: Titles of the galleries, and what is in them.
_GALLERIES: Final = {
    "suspicious": (
        "Most suspicious labels",
        "The IL model is sure of another class and finds the label less likely than blind chance; highest IL first.",
    ),
    "redundant": ("Most redundant", "Already learnt and easy for both models; lowest loss and IL first."),
    "never_selected": ("Never selected", "Candidates, and never chosen; most often read first."),
    "most_selected": ("Most selected", "Chosen most often."),
    "copies": (
        "Copies",
        "Training images that look the same: equal files, or encoded, resized, cropped or brightened again; those "
        "under other labels first. Look before you drop one: drawings that differ in a few lines look the same, too.",
    ),
}

#: Of pairs, what differs.
_GALLERIES_OF_PAIRS: Final = {
    "suspicious": (
        "Most suspicious captions",
        "A quarter of the other captions, or more, are more like the image by the reference model; those that most "
        "others beat first.",
    ),
    "redundant": (
        "Most redundant",
        "Already learnt: no other caption of the super-batch is more like the image, and the loss is low.",
    ),
    "copies": (
        "Copies",
        "Training images that look the same: equal files, or encoded, resized or brightened again; those under other "
        "captions first.",
    ),
}

#: What `Copy SQL` on a picture gives, with the key in place of the question mark.
_SAMPLE_SQL: Final = """\
SELECT run, step, {labeled}, loss, ledger.il, score, correct, selected, ledger.reason, samples.source
FROM samples LEFT JOIN ledger USING (key)
WHERE samples.key = '?'
ORDER BY run, step"""


_LABELED: Final = {
    "classification": "samples.class",
    "multi_label": "samples.classes",
    "pairs": "samples.text",
}


def write_report(
    workspace: str | os.PathLike[str] | Workspace,
    output: str,
    *,
    runs: Sequence[str] = (),
    il_model: str = "",
    near_duplicates: bool = False,
    metric: Metric | None = None,
    force: bool = False,
) -> ReportData:
    """Write the report on a workspace to the file `output`, a path or a URL that fsspec understands.

    Args:
        runs: the runs to compare, all where empty; the pictures are about the first of them that scored its candidates
            against irreducible losses.
        il_model: whose irreducible losses to show; by default that of this run, else the only one.
        near_duplicates: look through the training images for copies; this reads up to 50,000 of them.
        metric: what runs are compared by; None for the manifest's, see `TrainConfig`.
        force: overwrite a file that is no earlier result.

    Returns:
        What the page shows.

    Raises:
        ConfigError: no such run or IL model, no images to look through, or `output` may not be written, see
            `OutputFile`.
        WorkspaceError: no workspace, or files in it that cannot be read.
    """
    workspace = Workspace(workspace)
    file = OutputFile(output, workspace=workspace, force=force)
    data = gather(workspace, runs, il_model, near_duplicates=near_duplicates, metric=metric)
    file.write(render(data).encode())
    return data


def render(data: ReportData) -> str:
    """The page. The same data give the same bytes."""
    # Autoescape for every template: all that comes from a corpus is text, wherever it stands.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "number": number,
        "prose": _prose,
        "words": lambda name: name.replace("_", " "),
    }
    script = _resource("report.js")
    shown = (
        figures.loss_il_map(data),
        figures.reasons(data),
        figures.classes(data),
        figures.il_histogram(data),
        figures.confusion(data),
        run_figures.over_time(data),
        run_figures.accuracy(data),
        run_figures.costs(data),
    )
    galleries = _galleries(data)
    page = environment.get_template("report.html").render(
        title=data.corpus.manifest.get("name") or "corpus",
        data=data,
        corpus_sentence=summary.corpus_sentence(data),
        findings=summary.findings(data),
        comparison=summary.comparison(data),
        figures={figure.name: figure for figure in shown if figure is not None},
        galleries=galleries,
        run_colors=RUN_COLORS,
        class_names=list(map(told, data.corpus.classes)),
        classes=sorted({name for gallery in galleries for sample in gallery["samples"] for name in sample["classes"]}),
        reasons={
            name: words
            for name, words in REASONS.items()
            if any(sample["reason"] == name for gallery in galleries for sample in gallery["samples"])
        },
        rejects=_rejects(data),
        sample_sql=_SAMPLE_SQL.format(labeled=_LABELED[data.corpus.task]),
        style=Markup(_resource("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return told(page)


def _galleries(data: ReportData) -> list[dict[str, Any]]:
    """The galleries that have pictures; those beyond the first `_SHOWN` show when a filter asks for them."""
    titles = _GALLERIES | (_GALLERIES_OF_PAIRS if data.corpus.task == "pairs" else {})
    return [
        {
            "name": name,
            "title": titles[name][0],
            "says": " ".join((titles[name][1], *_beside(name, data))),
            "sql": answer.sql,
            "samples": [
                row
                | {
                    "classes": list(map(told, row["classes"])),  # the script compares them as they are shown
                    "predicted_class": None if row["predicted_class"] is None else told(row["predicted_class"]),
                    "caption": None if row["caption"] is None else _caption(row["caption"]),
                    "thumbnail": data.pictures[row["key"]],
                    "extra": row["rank"] > _SHOWN,
                    "facts": [(name, told(text)) for name, text in _facts(row, data) if text],
                }
                for row in answer.rows
            ],
        }
        for name, answer in data.galleries.items()
        if answer.rows
    ]


def _beside(gallery: str, data: ReportData) -> list[str]:
    """What is known of a gallery beyond its title."""
    if gallery == "copies" and data.copies is not None:
        found, looked_at = count(data.copies.found), count(data.copies.looked_at)
        return [f"{found} pairs among {looked_at} of {count(data.copies.images)} images."]
    right = data.right() if gallery == "suspicious" and data.corpus.task != "pairs" else None
    told_of = [] if right is None else [f"{data.il_model} predicts {percent(right)} of the labels that it never saw."]
    return [*told_of, f"{data.doubt}."] if gallery == "suspicious" and data.doubt is not None else told_of


def _caption(text: str) -> str:
    """How it begins, on one line."""
    return told(hide_secrets(excerpt(text, CHARACTERS))) or "no caption"


def _facts(row: Mapping[str, Any], data: ReportData) -> list[tuple[str, str]]:
    """What is told of a picture that is opened, by name; "" where it is not known."""
    given, guess = row["classes"], row["predicted_class"]
    sure = "" if row["confidence"] is None else f", {percent(row['confidence'])} sure"
    of_class = [
        f"it predicts {percent(right)} of the labels {name}"
        for name in dict.fromkeys((*given, *([guess] if guess is not None else [])))
        if guess is not None and (right := data.right(name)) is not None
    ]
    if row["caption"] is not None:
        what = [
            ("caption", hide_secrets(row["caption"]) or "empty"),
            ("similarity", number(row["similarity"])),
            ("beaten by", "" if row["beaten_by"] is None else f"{percent(row['beaten_by'])} of the other captions"),
        ]
    else:
        what = [("label", ", ".join(given) or "no class")]
    return [
        *what,
        (f"{data.il_model} says", "; ".join([f"{guess}{sure}", *of_class]) if guess is not None else ""),
        ("irreducible loss", f"{number(row['il'])} nats" if row["il"] is not None else ""),
        ("latest loss", f"{number(row['loss'])} nats" if row["loss"] is not None else ""),
        ("looks like", ", ".join(data.copies.alike(row["key"])) if data.copies is not None else ""),
        ("selected", f"{row['selected']} of {row['drawn']} times" if row["drawn"] else ""),
        ("reason", f"{row['reason'].replace('_', ' ')}: {REASONS.get(row['reason'], '')}"),
        ("source", row["source"]),
    ]


def _rejects(data: ReportData) -> list[dict[str, Any]]:
    examples = data.answers["examples"].rows
    return [
        row | {"examples": [example for example in examples if example["reason"] == row["reason"]]}
        for row in data.answers["rejects"].rows
    ]


def _prose(sentence: str) -> Markup:
    """A sentence of ours, in which `commands` stand between backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _resource(name: str) -> str:
    return (files(_TEMPLATES) / "templates" / name).read_text(encoding="utf-8")
