"""The command `finetune`: fine-tune a model, compare models, use one.

finetune ner --dataset_name samples --output_dir runs/ner
finetune predict --model_name_or_path runs/ner --input_file test.conll
python -m recipes ner ...                 # the same, where the command is not on the path
accelerate launch -m recipes ner ...      # on several processes or GPUs, or in another precision
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import finetune
from finetune.config_files import named_configs
from finetune.spelling import did_you_mean

COMMANDS = {
    "ner": ("ner", "words with a tag each: named entities, parts of speech"),
    "sentiment": ("sentiment", "texts or pairs of texts: a label, several labels, or a number"),
    "qa": ("question_answering", "questions about passages"),
    "seq2seq": ("seq2seq", "text to text: translation, summaries, other spellings"),
    "pretrain": ("pretrain", "masked tokens, from scratch or from a checkpoint"),
    "language-model": ("language_model", "the next word: recurrent networks, a small transformer, or a checkpoint"),
    "distil": ("distil", "a small model that learns from a large one: its labels for words or texts"),
    "check": ("check_data", "a data set before training: duplicates, contradictions, suspicious labels"),
    "compare": ("compare", "several models and seeds, one report: is it better, by more than chance"),
    "search": ("search", "good values for flags: learning rate, epochs, batch, or any other flag"),
    "predict": ("predict", "a trained model on texts, words, JSONL or CoNLL"),
    "verify": ("verify", "the scores of a run, computed again from its predictions, its data and its model"),
    "serve": ("serve", "a trained model as a small HTTP service"),
    "export": ("export", "a trained model as ONNX, in int8 if that is proved to answer alike"),
    "fetch": ("fetch_data", "public data sets of the configs, from their publishers, with checksums"),
    "gradient-flow": ("gradient_flow", "how far back a gradient reaches in each architecture"),
    "completion": ("completion", "a script for your shell: the TAB key completes commands, flags and values"),
    "demo": ("demo", "three models on the sample data, one report"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Calls the `main` of a recipe with the arguments that follow its command.

    Raises:
        SystemExit: with status 2 and one sentence, for an unknown command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
    elif words[0] == "--version":
        print(finetune.__version__)
    elif words[0] not in COMMANDS:
        hint = did_you_mean(words[0], COMMANDS) or f"; choose from {', '.join(COMMANDS)}"
        print(f"finetune: error: unknown command {words[0]!r}{hint}", file=sys.stderr)
        raise SystemExit(2)
    else:
        importlib.import_module(f"recipes.{COMMANDS[words[0]][0]}").main(words[1:])


def module_of(word: str) -> str:
    """The recipe of a command: `question_answering` of `qa`. Any other word is returned as it is."""
    return COMMANDS.get(word, (word, ""))[0]


def _help() -> str:
    commands = "\n".join(f"  {name:15s}{what}" for name, (_, what) in COMMANDS.items())
    folder = Path(__file__).parent / "configs"
    configs = "\n".join(f"  {name}" for name in named_configs(folder) if not name.startswith("accelerate/"))
    return f"""{(__doc__ or "").strip()}

commands (finetune COMMAND --help lists the flags of each):
{commands}

configs that --config takes by name (they lie in {folder}, launch files for accelerate in accelerate/):
{configs}"""


if __name__ == "__main__":
    main()
