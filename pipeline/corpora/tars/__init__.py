"""WebDataset tars that other tools wrote: their members, samples and places."""
