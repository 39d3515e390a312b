from .write import TokensSummary as TokensSummary, write_tokens as write_tokens
