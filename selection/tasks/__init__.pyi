from .classification import Classification as Classification
from .multi_label import MultiLabel as MultiLabel
from .task import Criterion as Criterion, Forward as Forward, Task as Task, logits_of as logits_of
