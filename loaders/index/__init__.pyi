from .clusters import (
    CLUSTERS_KEY as CLUSTERS_KEY,
    Clusters as Clusters,
    ClustersCard as ClustersCard,
    clusters_file as clusters_file,
    clusters_part as clusters_part,
    clusters_rows as clusters_rows,
    read_clusters_card as read_clusters_card,
)
from .columns import distinct as distinct, values as values
from .core_set import (
    CORE_SET_KEY as CORE_SET_KEY,
    CoreSet as CoreSet,
    CoreSetCard as CoreSetCard,
    core_set_file as core_set_file,
    core_set_part as core_set_part,
    core_set_rows as core_set_rows,
    read_core_set_card as read_core_set_card,
)
from .corpus_metadata import (
    FIELDS as FIELDS,
    IL_MODEL_KEY as IL_MODEL_KEY,
    METADATA_NAME as METADATA_NAME,
    SHARD_DIGEST_KEY as SHARD_DIGEST_KEY,
    Appended as Appended,
    CorpusMetadata as CorpusMetadata,
    ShardRows as ShardRows,
    read_index as read_index,
    read_shard_rows as read_shard_rows,
    undecodable as undecodable,
)
from .hashing import (
    CLUSTERED as CLUSTERED,
    EVALUATED as EVALUATED,
    REMEMBERED as REMEMBERED,
    key_hash as key_hash,
    key_hashes as key_hashes,
)
from .keys import is_safe_name as is_safe_name, key_of as key_of, webdataset_key as webdataset_key
from .labels import (
    LABEL_LISTS as LABEL_LISTS,
    Labels as Labels,
    concat_labels as concat_labels,
    take_labels as take_labels,
    take_lists as take_lists,
)
from .row_parts import has_row_part as has_row_part, row_part_origin as row_part_origin
from .shard_list import (
    LISTS as LISTS,
    Shard as Shard,
    ShardList as ShardList,
    list_in_card as list_in_card,
    remove_other_lists as remove_other_lists,
)
from .thumbnails import (
    THUMBNAIL_INDEX as THUMBNAIL_INDEX,
    THUMBNAIL_KEY as THUMBNAIL_KEY,
    ThumbnailFormat as ThumbnailFormat,
    ThumbnailRows as ThumbnailRows,
    Thumbnails as Thumbnails,
    current_thumbnails as current_thumbnails,
    exact_thumbnails as exact_thumbnails,
    metadata_file as metadata_file,
    read_thumbnail_rows as read_thumbnail_rows,
    thumbnail_index as thumbnail_index,
    thumbnail_tar as thumbnail_tar,
    thumbnails_name as thumbnails_name,
    thumbnails_remedy as thumbnails_remedy,
)
from .tokens import (
    TOKENIZER_KEY as TOKENIZER_KEY,
    Tokens as Tokens,
    read_tokens as read_tokens,
    stored_tokens as stored_tokens,
    tokens_file as tokens_file,
    tokens_name as tokens_name,
    tokens_part as tokens_part,
    tokens_rows as tokens_rows,
)
from .validation_samples import is_validation_sample as is_validation_sample
