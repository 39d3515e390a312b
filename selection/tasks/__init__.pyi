from .classification import Classification as Classification
from .foreign_models import images_and_tokens as images_and_tokens, transformers_outputs as transformers_outputs
from .multi_label import MultiLabel as MultiLabel
from .of_corpus import task_of as task_of
from .pair_embeddings import PairEmbeddings as PairEmbeddings
from .pairs import Pairs as Pairs
from .task import Criterion as Criterion, Forward as Forward, Task as Task, logits_of as logits_of
