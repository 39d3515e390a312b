from .ahead import read_ahead as read_ahead
from .engine import Engine as Engine, chosen_engine as chosen_engine
from .identity import require_same as require_same
from .interruption import (
    Interrupted as Interrupted,
    StopRequest as StopRequest,
    interrupt_on_sigterm as interrupt_on_sigterm,
    repeat_ignored_signals as repeat_ignored_signals,
    stop_request as stop_request,
    swallowed_signal as swallowed_signal,
)
from .job import joined as joined, require_agreement as require_agreement
from .lock import (
    exclusive_lock as exclusive_lock,
    hold_as_worker as hold_as_worker,
    one_at_a_time as one_at_a_time,
    remove_contents as remove_contents,
)
from .maker import Advance as Advance, Maker as Maker
from .per_shard import (
    ShardUnit as ShardUnit,
    make_shards as make_shards,
    shards_asked_for as shards_asked_for,
    units_due as units_due,
    units_of as units_of,
    whole_splits as whole_splits,
)
from .processes import in_processes as in_processes
from .progress_bar import Progress as Progress, progress as progress
from .run_files import (
    read_run_facts as read_run_facts,
    read_run_metrics as read_run_metrics,
    run_facts_file as run_facts_file,
    run_metrics_file as run_metrics_file,
    write_run_facts as write_run_facts,
)
from .telling import another_tells as another_tells
from .temporary_folder import (
    TemporaryFolder as TemporaryFolder,
    remove_temporary_folders as remove_temporary_folders,
)
from .units import make_units as make_units
