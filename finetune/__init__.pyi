from . import checking as checking
from . import data as data
from . import metrics as metrics
from . import models as models
from . import prediction as prediction
from . import reporting as reporting
from . import stages as stages
from . import tasks as tasks
from . import training as training
from .checking import check_data as check_data
from .models import fill_in as fill_in
from .models import trim_vocabulary as trim_vocabulary
from .prediction import attention as attention
from .prediction import generate as generate
from .prediction import load_predictor as load_predictor
from .prediction import predict as predict
from .span_prediction import label_spans as label_spans

__version__: str
