from .classification import Classification as Classification
from .classification import classification_scores as classification_scores
from .entities import EntityCounts as EntityCounts
from .entities import EntityF1 as EntityF1
from .entities import entity_counts as entity_counts
from .entities import entity_scores as entity_scores
