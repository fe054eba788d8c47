"""The demo: compares a transformer, a BiLSTM and a dictionary on the sample data, and labels a sentence.

python recipes/demo.py
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune import cli
from recipes.compare import CompareConfig, compare
from recipes.ner import NerConfig

SENTENCE = "Priya Raman flew from Toronto to Lisbon to open the first office of Meridian Foods."
MODELS: dict[str, dict[str, Any]] = {
    "all-MiniLM-L6-v2": {"num_train_epochs": 5, "learning_rate": 2e-4, "per_device_train_batch_size": 8},
    "bilstm": {"model_name_or_path": "bilstm"},
    "dictionary": {"model_name_or_path": "dictionary"},
}


def demo(folder: str = "runs/demo") -> dict[str, Any]:
    """Trains the models in `folder`, labels a sentence with the transformer, and returns the report."""
    # A finished run is not trained again. To train all again, remove the folder.
    models = {name: NerConfig(dataset_name="samples", **own) for name, own in MODELS.items()}
    print(
        # Measured: 2 min 13 s on two free cores; 33 min where other programs left it a quarter of one core.
        f"Training three models into {folder}: about 2 minutes on two free cores. Beside other work it may take half "
        "an hour. What is finished stays.",
        flush=True,
    )
    report = compare(CompareConfig(models, seeds=(0, 1), output_dir=folder))

    import finetune

    best = str(Path(folder) / next(iter(MODELS)) / "seed-0")
    print(f"\n{SENTENCE}\nas labelled by {best}:")
    for entity in finetune.predict(best, [SENTENCE])[0]["entities"]:
        print(f"  {entity['label']:5s} {entity['text']}  ({entity['score']:.2f})")
    print(f"\nreport: {Path(folder) / 'report.html'}")
    return report


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=cli.program(), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    demo()


if __name__ == "__main__":
    main()
