from . import remote as remote
from .cache_root import cache_folder as cache_folder
from .outputs import OWNED as OWNED, OutputFile as OutputFile, OutputFolder as OutputFolder
from .remote import is_remote as is_remote
from .retries import with_retries as with_retries
from .shard_reader import ShardReader as ShardReader
from .termination import removed_on_sigterm as removed_on_sigterm
from .workspace import TEMPORARY_SUFFIX as TEMPORARY_SUFFIX, Workspace as Workspace
