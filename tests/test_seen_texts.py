"""Which texts of a run its checkpoint was pretrained on."""

from datasets import Dataset

from finetune import config_files
from finetune.seen_texts import told_of_seen_texts
from finetune.tasks import classification, questions, seq2seq
from recipes.pretrain import PretrainConfig


def test_each_text_of_a_pair_and_of_a_question_is_looked_up(tmp_path):
    (tmp_path / "a.txt").write_text("A dog runs.\nThe whole passage.\n")
    flags = PretrainConfig(train_file=str(tmp_path / "a.txt"), validation_split_percentage=0.0)
    (tmp_path / "run.yaml").write_text(config_files.to_yaml(flags))
    pairs = Dataset.from_list([{"text": "New.", "text_pair": "A dog  runs."}, {"text": "New.", "text_pair": ""}])
    asked = Dataset.from_list(
        [{"question": "Who?", "context": "The whole passage."}, {"question": "A", "context": "B"}]
    )
    parallel = Dataset.from_list([{"text": "Ein Hund.", "target": "A dog runs."}])
    for rows, task, told in (
        (pairs, classification, "texts of 1 of the 2 samples"),
        (asked, questions, "texts of 1 of the 2 samples"),
        (parallel, seq2seq, "texts of 1 of the 1 samples"),
        (pairs.select_columns("text"), classification, "0 of the 2 texts"),
    ):
        said = told_of_seen_texts(str(tmp_path), {"test": rows}, task)
        assert said.endswith(f"; in it are {told} of the test split"), said
