"""Makes the package's models known to the Auto classes, at the moment that somebody imports these.

Registering at once would import torch and transformers (1.5 s) in every program that says
`import finetune`, so the work waits for the modules that hold the tables.
"""

import sys
from types import ModuleType

import wrapt

MODELING = "transformers.models.auto.modeling_auto"
TOKENIZATION = "transformers.models.auto.tokenization_auto"
CONFIGURATION = "transformers.models.auto.configuration_auto"
ENCODER_DECODER = "transformers.models.encoder_decoder.modeling_encoder_decoder"


def register_when_imported() -> None:
    """Arranges that configs, models and the tokenizer are registered once their Auto module is imported.

    A module that is imported already is served at once. Registering twice does no harm.
    """
    wrapt.when_imported(CONFIGURATION)(_register_configs)
    wrapt.when_imported(MODELING)(_register_models)
    wrapt.when_imported(TOKENIZATION)(_register_tokenizer)
    wrapt.when_imported(ENCODER_DECODER)(_register_shared)


def _register_configs(auto: ModuleType) -> None:
    from finetune.models.configuration import (
        EncoderCrfConfig,
        RecurrentConfig,
        RecurrentSeq2SeqConfig,
        TransformerSeq2SeqConfig,
    )

    for config in (RecurrentConfig, EncoderCrfConfig, RecurrentSeq2SeqConfig, TransformerSeq2SeqConfig):
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_models(auto: ModuleType) -> None:
    # Its import may be what imports the Auto module, for `generate()`. So it registers its model itself, at its end.
    import finetune.models.recurrent_language_model  # noqa: F401
    from finetune.models.configuration import (
        EncoderCrfConfig,
        RecurrentConfig,
        RecurrentSeq2SeqConfig,
        TransformerSeq2SeqConfig,
    )
    from finetune.models.crf import EncoderCrfForTokenClassification
    from finetune.models.encoder_decoders import RecurrentForSeq2Seq
    from finetune.models.reader import RecurrentForQuestionAnswering
    from finetune.models.recurrent import (
        RecurrentForSequenceClassification,
        RecurrentForTokenClassification,
        RecurrentModel,
    )
    from finetune.models.seq2seq_transformer import TransformerForSeq2Seq

    # Its base class needs the models. If the base class is half imported now, it comes when that is done.
    base = sys.modules.get(ENCODER_DECODER)
    if base is None or hasattr(base, "EncoderDecoderModel"):
        _register_shared(base)
    auto.AutoModel.register(RecurrentConfig, RecurrentModel, exist_ok=True)
    auto.AutoModelForTokenClassification.register(RecurrentConfig, RecurrentForTokenClassification, exist_ok=True)
    auto.AutoModelForTokenClassification.register(EncoderCrfConfig, EncoderCrfForTokenClassification, exist_ok=True)
    auto.AutoModelForSequenceClassification.register(
        RecurrentConfig, RecurrentForSequenceClassification, exist_ok=True
    )
    auto.AutoModelForQuestionAnswering.register(RecurrentConfig, RecurrentForQuestionAnswering, exist_ok=True)
    auto.AutoModelForSeq2SeqLM.register(RecurrentSeq2SeqConfig, RecurrentForSeq2Seq, exist_ok=True)
    auto.AutoModelForSeq2SeqLM.register(TransformerSeq2SeqConfig, TransformerForSeq2Seq, exist_ok=True)


def _register_shared(base: ModuleType | None) -> None:
    import finetune.models.shared_weights  # noqa: F401  # registers its model itself, at its end


def _register_tokenizer(auto: ModuleType) -> None:
    from finetune.models.configuration import RecurrentConfig
    from finetune.models.tokenizers import WordTokenizer

    auto.AutoTokenizer.register(RecurrentConfig, tokenizer_class=WordTokenizer, exist_ok=True)
