from .il_table import ILTable as ILTable, il_digest as il_digest, il_spec as il_spec, open_il_table as open_il_table
from .joined_rows import JoinedRows as JoinedRows, unusable as unusable
from .key_table import KeyTable as KeyTable
from .pair_reference import (
    ContrastiveLoss as ContrastiveLoss,
    PairReference as PairReference,
    require_contrastive as require_contrastive,
)
from .prefilter import Prefilter as Prefilter
