"""The demo: a transformer beside its LSTM baseline on the sample data, one table, and a labelled sentence.

python recipes/demo.py
"""

from pathlib import Path
from typing import Any

from finetune import reporting
from recipes.ner import NerConfig, finetune_ner

SENTENCE = "Priya Raman flew from Toronto to Lisbon to open the first office of Meridian Foods."
CONFIGS: dict[str, dict[str, Any]] = {
    "all-MiniLM-L6-v2": {"num_train_epochs": 5, "learning_rate": 2e-4, "per_device_train_batch_size": 8},
    "bilstm": {"model_name_or_path": "bilstm"},
}
COLUMNS = ("test_f1", "test_words_scored", "train_tokens_per_second", "total_parameters", "train_runtime")


def demo(folder: str = "runs/demo") -> dict[str, dict[str, float]]:
    """Trains both models under `folder` and returns their results."""
    results = {}
    for name, settings in CONFIGS.items():
        print(f"\n=== {name}")
        config = NerConfig(
            dataset_name="samples", output_dir=f"{folder}/{name}", overwrite_output_dir=True, **settings
        )
        results[name] = finetune_ner(config).results
    print(f"\nEntities of the sample data's test split:\n\n{reporting.results_table(results, COLUMNS)}\n")

    from transformers import pipeline

    model = str(Path(folder) / next(iter(CONFIGS)))
    print(f"{SENTENCE}\nas labelled by the model in {model}, read back through transformers.pipeline:")
    tagger: Any = pipeline("token-classification", model=model, aggregation_strategy="first")
    for entity in tagger(SENTENCE):
        words = SENTENCE[entity["start"] : entity["end"]]
        print(f"  {entity['entity_group']:5s} {words}  ({entity['score']:.2f})")
    return results


if __name__ == "__main__":
    demo()
