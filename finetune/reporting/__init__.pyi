from .attention import AttentionMaps as AttentionMaps
from .attention import attention as attention
from .files import write_predictions as write_predictions
from .model_card import told_settings as told_settings
from .model_card import write_model_card as write_model_card
from .tables import results_table as results_table
