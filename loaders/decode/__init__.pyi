from .augmentation import (
    AUGMENTATIONS as AUGMENTATIONS,
    Augmentation as Augmentation,
    shift_and_flip as shift_and_flip,
    uniform_draws as uniform_draws,
)
from .chunk import Failures as Failures
from .fast_paths import raw_header as raw_header
from .image_reader import ImageReader as ImageReader, PendingImages as PendingImages
from .image_spec import ImageSpec as ImageSpec
from .input_reader import InputReader as InputReader, PendingInputs as PendingInputs
from .input_spec import InputSpec as InputSpec
from .pixels import Pixels as Pixels
from .read_options import ReadOptions as ReadOptions, available_cores as available_cores
from .rgb import (
    MAX_PIXELS as MAX_PIXELS,
    content_hash as content_hash,
    decode_rgb as decode_rgb,
    image_format as image_format,
)
from .spec_of import spec_of as spec_of
from .stored import read_stored as read_stored
from .stored_refs import Positions as Positions, StoredRefs as StoredRefs, take_texts as take_texts
from .text_reader import Tokens as Tokens
from .text_spec import NO_TOKEN as NO_TOKEN, TextSpec as TextSpec
from .texts import (
    MAX_TEXT_BYTES as MAX_TEXT_BYTES,
    PAIR_SEPARATOR as PAIR_SEPARATOR,
    decode_text as decode_text,
    excerpt as excerpt,
    normalized_hash as normalized_hash,
)
from .tokenizers import (
    TOKENIZERS_FOLDER as TOKENIZERS_FOLDER,
    keep_tokenizer as keep_tokenizer,
    tokenizer_of as tokenizer_of,
)
