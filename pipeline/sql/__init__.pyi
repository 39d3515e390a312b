from .database import (
    Reader as Reader,
    query as query,
    reading as reading,
    run_interruptibly as run_interruptibly,
)
from .views import VIEWS as VIEWS, create_views as create_views, quote as quote
