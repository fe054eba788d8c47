from .check import Report as Report
from .check import check_data as check_data
from .check import checked as checked
from .check import write as write
from .patches import apply_patch as apply_patch
from .patches import keep_accepted as keep_accepted
