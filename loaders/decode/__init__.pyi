from .augmentation import (
    AUGMENTATIONS as AUGMENTATIONS,
    Augmentation as Augmentation,
    shift_and_flip as shift_and_flip,
    uniform_draws as uniform_draws,
)
from .chunk import Failures as Failures
from .fast_paths import raw_header as raw_header
from .image_reader import ImageReader as ImageReader, PendingImages as PendingImages
from .image_refs import ImageRefs as ImageRefs, Positions as Positions, take_texts as take_texts
from .image_spec import ImageSpec as ImageSpec
from .pixels import Pixels as Pixels
from .read_options import ReadOptions as ReadOptions, available_cores as available_cores
from .rgb import (
    MAX_PIXELS as MAX_PIXELS,
    content_hash as content_hash,
    decode_rgb as decode_rgb,
    image_format as image_format,
)
from .stored import read_stored as read_stored
