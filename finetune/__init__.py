"""Fine-tune BERT, RoBERTa and XLM-R, beside recurrent baselines given the same chance.

`import finetune` costs no torch: the parts are imported when they are first used. It also makes the
package's own models known to `AutoModelFor...` and `pipeline()`.
"""

import lazy_loader

from finetune._auto import register_when_imported

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["data", "metrics", "models", "prediction", "reporting", "training"],
    submod_attrs={
        "models": ["fill_in", "generate", "trim_vocabulary"],
        "prediction": ["attention", "load_predictor", "predict"],
    },
)

register_when_imported()
