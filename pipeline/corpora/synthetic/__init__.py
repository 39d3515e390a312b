"""The embedded demo corpus: drawn garments with known truth."""
