"""Fine-tune BERT, RoBERTa and XLM-R, beside recurrent baselines given the same chance.

`import finetune` costs no torch: the parts are imported when they are first used (`__init__.pyi` lists them). It also
makes the package's own models known to `AutoModelFor...` and `pipeline()`.
"""

import os

import lazy_loader

from finetune._auto import register_when_imported

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# OpenMP reads this once, when torch is loaded, which is later. By default threads that wait for each other spin for
# milliseconds. Beside another process this makes steps several times slower, up to a hundred times. After so short a
# spin they sleep (benchmarks/README.md, "Threads").
if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "1000"

register_when_imported()
