from .live_il import LiveIL as LiveIL
from .proxy import ProxyScorer as ProxyScorer
