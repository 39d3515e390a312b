from .identity import require_same as require_same
from .interruption import (
    Interrupted as Interrupted,
    StopRequest as StopRequest,
    interrupt_on_sigterm as interrupt_on_sigterm,
    stop_request as stop_request,
)
from .lock import exclusive_lock as exclusive_lock, hold_as_worker as hold_as_worker, remove_contents as remove_contents
from .processes import in_processes as in_processes
from .progress_bar import Progress as Progress, progress as progress
from .units import make_units as make_units
