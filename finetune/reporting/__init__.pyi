from .comparison import add_comparison_to_card as add_comparison_to_card
from .comparison import comparison_table as comparison_table
from .comparison import write_comparison as write_comparison
from .environment import machine as machine
from .files import write_predictions as write_predictions
from .model_card import told_settings as told_settings
from .model_card import write_model_card as write_model_card
from .tables import results_table as results_table
