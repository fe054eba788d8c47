"""The rules of the house: which way imports go, what is subclassed, what an import costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import data
from finetune.arguments import DataArguments

ROOT = Path(__file__).parents[1]
PARTS = ("data", "models", "metrics", "training", "reporting")
BASES = {
    "nn.Module",
    "nn.Dropout",
    "nn.Embedding",
    "PreTrainedModel",
    "RecurrentPreTrainedModel",
    "GenerationMixin",
    "EncoderDecoderModel",
    "EncoderDecoderConfig",
    "PreTrainedConfig",
    "PreTrainedTokenizerFast",
    "evaluate.Metric",
    "torch.autograd.Function",
    "urllib.request.HTTPRedirectHandler",
    "Protocol",
}
FLAGS = {"TrainingArguments", "ModelArguments", "DataArguments", "Seq2SeqModelArguments", "LossArguments"}
FLAGS |= {"TextFileArguments", "WordFileArguments", "TeacherArguments", "TagArguments", "FoldArguments"}
FLAGS |= {"PredictionArguments"}


def modules(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("part", PARTS)
def test_parts_do_not_import_each_other(part):
    allowed = (f"finetune.{part}", "finetune.arguments", "finetune.cli", "finetune.config_files", "finetune.files")
    allowed += ("finetune.from_python", "finetune.spelling", "finetune.__version__")
    for file, tree in modules(f"finetune/{part}"):
        for name in imported(tree):
            assert not name.startswith("recipes"), file
            if name.startswith("finetune"):
                assert name.startswith(allowed), f"{file} imports {name}"


def test_tasks_join_the_parts_alone():
    allowed = tuple(f"finetune.{part}" for part in (*PARTS, "tasks", "arguments", "files"))
    for file, tree in modules("finetune/tasks"):
        for name in imported(tree):
            assert not name.startswith(
                ("recipes", "finetune.prediction", "finetune.comparison", "finetune.checking", "finetune.stages")
            ), file
            if name.startswith("finetune"):
                assert name.startswith(allowed), f"{file} imports {name}"


def test_arguments_import_nothing_of_the_house():
    tree = ast.parse((ROOT / "finetune/arguments.py").read_text())
    assert not [name for name in imported(tree) if name.startswith(("finetune", "torch", "transformers"))]


def test_only_frameworks_classes_and_flags_are_subclassed():
    for folder in ("finetune", "recipes"):
        for file, tree in modules(folder):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base) for base in node.bases}
                    assert bases <= BASES | (FLAGS if folder == "recipes" else set()) | {
                        "argparse.ArgumentDefaultsHelpFormatter",
                        "argparse.RawDescriptionHelpFormatter",
                    }, (file, node.name)


def test_no_part_offers_a_name_of_one_of_its_modules():
    """`import finetune.training.checkpoints as c` would give the function of that name."""
    for part in PARTS:
        offered = set(re.findall(r" as (\w+)$", (ROOT / f"finetune/{part}/__init__.pyi").read_text(), re.MULTILINE))
        assert offered
        assert not offered & {file.stem for file in (ROOT / f"finetune/{part}").glob("*.py")}


def test_there_is_one_door_for_what_comes_from_elsewhere():
    """Models are loaded where they are checked first; nothing else is unpickled, or run, anywhere."""
    door = ROOT / "finetune/models/pretrained.py"
    loads = {"from_pretrained", "get_config_dict", "pipeline"}
    runs = {"torch.load", "torch.jit.load", "torch.hub.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
    runs |= {"eval", "exec"}
    remote = {"load_state_dict_from_url", "get_class_from_dynamic_module", "get_kernel"}
    unsafe = {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "runpy", "code"}
    found = []
    for folder in ("finetune", "recipes"):
        for file, tree in modules(folder):
            assert not {name.partition(".")[0] for name in imported(tree)} & unsafe, file
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                last = called.rpartition(".")[2]
                assert called not in runs, (file, called)
                assert last not in remote, (file, called)
                told = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                assert told.get("allow_pickle", "False") == "False", (file, called)
                assert told.get("trust_remote_code", "False") == "False", (file, called)
                if last in loads:
                    found.append(file)
    assert set(found) == {door}, "from_pretrained, past the checks"


def steps(recipe):
    text = (ROOT / f"recipes/{recipe}.py").read_text()
    return [line.strip() for line in text.splitlines() if line.strip()[:3] in {f"# {n}" for n in range(1, 10)}]


def test_recipes_have_the_same_steps_and_are_short():
    for recipe in ("ner", "sentiment", "question_answering", "language_model", "pretrain", "distil"):
        assert [step[:4] for step in steps(recipe)] == [f"# {n}." for n in range(1, 6)]
        most = 225 if recipe == "pretrain" else 120
        assert len((ROOT / f"recipes/{recipe}.py").read_text().splitlines()) <= most


def test_importing_finetune_costs_no_torch():
    code = (
        "import sys, finetune, finetune.arguments, finetune.cli, recipes.ner, recipes.predict, "
        "recipes.language_model, recipes.pretrain, recipes.question_answering, recipes.sentiment; "
        "print([name for name in ('torch', 'transformers', 'datasets', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_baselines_are_known_whichever_is_imported_first(tmp_path):
    for order in (
        "import finetune; from transformers import AutoConfig",
        "from transformers import AutoConfig; import finetune",
    ):
        code = f"{order}; print(type(AutoConfig.for_model('recurrent')).__name__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == "RecurrentConfig"


def test_lazy_names_exist():
    for part in PARTS:
        module = __import__(f"finetune.{part}", fromlist=["x"])
        assert module.__all__
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_sample_sentences():
    splits = data.read_tagged(DataArguments(dataset_name="samples"))
    assert len(splits["train"]) >= 400
    assert min(len(splits["validation"]), len(splits["test"])) >= 100
    labels = data.entity_labels(splits["train"])
    assert {label[2:] for label in labels[1:]} == {"PER", "ORG", "LOC", "MISC"}
    data.check_labels(splits, labels, "ner_tags")

    def entities(split):
        found = set()
        for words, tags in zip(split["tokens"], split["ner_tags"], strict=True):
            assert data.invalid_iob2(tags) == 0
            for i, tag in enumerate(tags):
                if tag.startswith("B-"):
                    end = i + 1
                    while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                        end += 1
                    found.add((" ".join(words[i:end]), tag[2:]))
        return found

    seen = entities(splits["train"])
    unseen = [entity for entity in entities(splits["test"]) if entity not in seen]
    assert len(unseen) / len(entities(splits["test"])) > 0.75
    sentences = [" ".join(words).lower() for split in splits.values() for words in split["tokens"]]
    assert len(set(sentences)) == len(sentences)


def test_sample_texts():
    splits = data.read_labelled(DataArguments(dataset_name="samples"))
    assert len(splits["train"]) >= 400
    assert min(len(splits["validation"]), len(splits["test"])) >= 100
    for split in splits.values():
        labels = split["label"][:]
        for label in ("negative", "neutral", "positive"):
            assert 0.25 < labels.count(label) / len(labels) < 0.42
    texts = [text.lower() for split in splits.values() for text in split["text"]]
    assert len(set(texts)) == len(texts)


IMPORT_EACH = """
import os, sys
import accelerate, datasets, torch, transformers  # once, not for each module
from transformers import BertModel
failed = []
for statement in sys.argv[1:]:
    child = os.fork()
    if not child:
        code = 1
        try:
            exec(statement)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        failed.append(statement)
print(*failed, sep="\\n")
"""


def test_every_module_can_be_the_first_that_is_imported():
    statements = []
    for part in PARTS:
        first = {}  # a public name of each module
        for module, name in re.findall(
            r"^from \.(\w+) import (\w+)", (ROOT / f"finetune/{part}/__init__.pyi").read_text(), re.MULTILINE
        ):
            first.setdefault(module, name)
        statements += [f"from finetune.{part} import {name}" for name in first.values()]
    assert len(statements) > 30
    command = [sys.executable, "-c", IMPORT_EACH, *statements]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() == "", done.stderr[-1500:]
