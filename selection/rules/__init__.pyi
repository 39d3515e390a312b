from .constraints import ClassFloor as ClassFloor, ClusterFloor as ClusterFloor, ScoreFloor as ScoreFloor
from .gumbel import GumbelTop as GumbelTop
from .importance import Importance as Importance
from .joint import Joint as Joint, PairScores as PairScores
from .rule import Chosen as Chosen, Rule as Rule, unweighted as unweighted
from .selective_backprop import SelectiveBackprop as SelectiveBackprop
from .top import Top as Top
from .weighted import Weighted as Weighted
