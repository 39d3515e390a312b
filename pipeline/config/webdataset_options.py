"""The options of the format webdataset, which `rho index` has on its command line."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from rhostream.pipeline.config.definition import StageConfig, setting


@dataclass(frozen=True, kw_only=True)
class WebDatasetOptions(StageConfig):
    """How the samples of foreign tars are read.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = "[options] "

    label: str = setting(
        "cls", metavar="PLACE", help="Where the label is: cls or txt (the member's text), or json.FIELD."
    )
    text: str = setting(
        "",
        metavar="PLACE",
        unset="images; of pairs txt",
        help="Where the text is, of samples of texts in place of images, or the caption of pairs: txt (the member), or "
        "json.FIELD.",
    )
    separator: str = setting(
        "",
        metavar="TEXT",
        unset="a JSON list",
        help="With --task multi_label: what stands between the labels of a text.",
    )
    images: tuple[str, ...] = setting(
        ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"),
        hidden=True,
        help="Extensions of images; a sample with several uses the first one here.",
    )
    extra: tuple[str, ...] | dict[str, str] = setting(
        (),
        metavar="FIELD[=TYPE]",
        implied="string",
        help="Field of the .json to keep in the index as string, int64, double or bool, or txt; may be repeated.",
    )
    splits: dict[str, str] = setting(
        {},
        flag="--split",
        variable="RHO_TAR_SPLITS",
        metavar="GLOB=SPLIT",
        help="Tars of an official split (train, holdout, val or test), by the end of their names; may be repeated.",
    )
    keys: Literal["sample", "tar"] = setting(
        "sample",
        help="sample keeps webdataset's __key__; tar also names the tar in it, for tars that number their samples "
        "alike.",
    )
    on_bad_tar: Literal["error", "skip"] = setting(
        "error",
        help="At a damaged tar stop, or go on at the next valid header and refuse the bytes between.",
    )
