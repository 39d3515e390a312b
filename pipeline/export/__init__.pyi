from .clean_list import clean_list as clean_list
from .formats import write_fiftyone as write_fiftyone, write_webdataset as write_webdataset
from .manifest import write_cleaned_manifest as write_cleaned_manifest
from .subset import Choice as Choice, Subset as Subset
