from . import remote as remote
from .arrow_files import ArrowStream as ArrowStream, opened_arrow as opened_arrow
from .cache_root import cache_folder as cache_folder
from .json_files import SEAL as SEAL, decode_card as decode_card
from .launcher import launched as launched
from .local_files import open_file as open_file, read_file as read_file
from .outputs import OWNED as OWNED, OutputFile as OutputFile, OutputFolder as OutputFolder
from .parquet_files import (
    decode_table as decode_table,
    encode_table as encode_table,
    opened_parquet as opened_parquet,
    parquet_errors as parquet_errors,
    record_batches as record_batches,
)
from .remote import is_remote as is_remote
from .retries import with_retries as with_retries
from .secret_urls import refuse_secrets as refuse_secrets
from .shapes import shaped as shaped
from .shard_reader import ShardReader as ShardReader
from .tensor_files import (
    decode_safetensors as decode_safetensors,
    decode_torch as decode_torch,
    encode_safetensors as encode_safetensors,
)
from .text_tables import csv_schema as csv_schema, read_csv as read_csv, read_ndjson as read_ndjson
from .unreadable import UnreadableError as UnreadableError
from .whole_files import whole_file as whole_file
from .workspace import Workspace as Workspace, temporary_of as temporary_of, write_apart as write_apart
