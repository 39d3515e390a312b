"""Datasets as the package `datasets` of Hugging Face leaves them: read by pyarrow, without that package."""
