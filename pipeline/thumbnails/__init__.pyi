from .write import (
    ThumbnailsSummary as ThumbnailsSummary,
    write_thumbnails as write_thumbnails,
)
