"""One file for each loader, with the same names in it.

VARIANTS            names of its variants
WORKERS             numbers of worker processes (FFCV: threads) to try, of which the best is taken
prepare(images, folder)                 write the loader's own format of the corpus, see `corpus.make`
batches(folder, variant, workers)       endless epochs, shuffled: `corpus.Batch` of up to 320 images
"""
