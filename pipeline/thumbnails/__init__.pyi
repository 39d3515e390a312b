from .write import (
    ThumbnailsConfig as ThumbnailsConfig,
    ThumbnailsSummary as ThumbnailsSummary,
    write_thumbnails as write_thumbnails,
)
