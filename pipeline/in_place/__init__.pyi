from .tars import index_tars as index_tars
