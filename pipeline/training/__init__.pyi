from .candidates import thumbnails_for as thumbnails_for
from .loop import il_table as il_table, train as train
from .properties import PASSED_OVER as PASSED_OVER
from .run import Run as Run
