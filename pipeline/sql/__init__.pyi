from .database import query as query, reading as reading, run_interruptibly as run_interruptibly
from .views import create_views as create_views, quote as quote
