from .captions import CaptionCounts as CaptionCounts, pair_identity as pair_identity
from .clean_list import read_clean_list as read_clean_list
from .content import Content as Content, content_of as content_of, with_caption as with_caption
from .hash_buckets import HASH as HASH, bring_together as bring_together
from .index_rows import IndexRows as IndexRows, SampleFacts as SampleFacts, names_of as names_of
from .own_files import (
    own_names as own_names,
    remove_own as remove_own,
    remove_temporaries as remove_temporaries,
)
from .plain_tar import PlainTar as PlainTar
from .plan import REMEDY as REMEDY
from .refusals import (
    Refusals as Refusals,
    add_refusals as add_refusals,
    refuse_mostly_bad as refuse_mostly_bad,
)
from .scratch import Scratch as Scratch, scratch_space as scratch_space
from .sources import refuse_sources_inside as refuse_sources_inside
from .straddling import Settled as Settled, refuse_straddling as refuse_straddling
from .summary import tally as tally, write_metadata as write_metadata
from .unit import (
    ENTRIES_BEFORE_GIVING_UP as ENTRIES_BEFORE_GIVING_UP,
    ENTRIES_BETWEEN_REPORTS as ENTRIES_BETWEEN_REPORTS,
    METADATA as METADATA,
    PairFacts as PairFacts,
    UnitRecord as UnitRecord,
    clean_text as clean_text,
    rejects_name as rejects_name,
    require_two_classes as require_two_classes,
    settings_of_fields as settings_of_fields,
    settings_of_task as settings_of_task,
    shard_name as shard_name,
    split_of as split_of,
    write_unit as write_unit,
)
from .write import ShardsSummary as ShardsSummary, write_shards as write_shards
