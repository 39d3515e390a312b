"""A corpus that was given as another format than it has."""

from pathlib import Path

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def other_format(root: Path) -> str:
    """What to say of a root that looks like a dataset of Hugging Face's; "" where it does not."""
    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return 'it looks like what `save_to_disk` writes: format = "hf_disk" reads that'
    folders = [root, *(child for child in root.iterdir() if child.is_dir())]
    if any((folder / name).is_file() for folder in folders for name in _METADATA):
        return 'its metadata files look like an ImageFolder of `datasets`: format = "hf_imagefolder" reads that'
    if any(next(folder.glob("*.parquet"), None) for folder in folders):
        return 'its Parquet files look like a dataset of Hugging Face: format = "hf_parquet" reads that'
    return ""
