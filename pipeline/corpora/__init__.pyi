from .base import (
    Corpus as Corpus,
    Entry as Entry,
    HoldsScratch as HoldsScratch,
    Label as Label,
    fields_of as fields_of,
)
from .captions import parse_caption as parse_caption
from .columns import CLEAN_LABEL as CLEAN_LABEL, CLEAN_LABEL_TYPE as CLEAN_LABEL_TYPE
from .formats import open_corpus as open_corpus
from .labels import (
    SEVERAL_LABELS as SEVERAL_LABELS,
    LabelParser as LabelParser,
    Parser as Parser,
    derive_classes as derive_classes,
    label_parser as label_parser,
    label_text as label_text,
    label_texts as label_texts,
    text_of_labels as text_of_labels,
)
from .samples import SAMPLES_FORMAT as SAMPLES_FORMAT, SampleCorpus as SampleCorpus, Samples as Samples
from .splits import checked_splits as checked_splits
from .tars.files import find_tars as find_tars
from .tars.img2dataset import failed_and_missing as failed_and_missing
from .tars.members import (
    Damage as Damage,
    DamagedTarError as DamagedTarError,
    Member as Member,
    tar_members as tar_members,
)
from .tars.samples import SampleReader as SampleReader, TarSample as TarSample
from .tars.urls import TarFile as TarFile, list_tars as list_tars
from .webdataset import bad_tar as bad_tar, skipped as skipped
