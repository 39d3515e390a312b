"""`rho init`."""

import click

from rhostream.cli.options import examples, force_option, json_option
from rhostream.cli.output import say_result


@click.command(
    epilog=examples(
        "rho init imagefolder --root photos",
        "rho init table --root photos/labels.csv --output manifests/photos.toml",
    )
)
@click.argument("name", metavar="FORMAT")
@click.option("--root", metavar="PATH", default="", show_default=False, help="Folder or file of the corpus.")
@click.option(
    "--output", metavar="FILE", default="", show_default=False, help="The file to write.  [default: FORMAT.toml]"
)
@force_option
@json_option
def init(name: str, root: str, output: str, force: bool, as_json: bool) -> None:
    """Write a commented manifest for a corpus of FORMAT, to begin with.

    FORMAT is a format (imagefolder, table, webdataset, hf_parquet, hf_disk, hf_imagefolder, torchvision, clothing1m,
    synthetic, synthetic_pairs, synthetic_text), texts for a table of texts, pairs for tars of images with captions, or
    a corpus that is known: mnist, cifar10, img2dataset.
    """
    from rhostream.pipeline.config import write_template

    file = write_template(name, output, root, force=force)
    told = f"{file}: look through it, then run `rho shards --manifest {file} --workspace runs/{file.stem}`"
    say_result({"output": str(file)}, told, as_json)
