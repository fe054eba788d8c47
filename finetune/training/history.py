"""What a run reports about its steps and evaluations while it trains."""

import json
from pathlib import Path

from finetune.files import write_text
from finetune.training.run import Run


class History:
    """`history.jsonl`. A resumed run begins with the lines of its checkpoint."""

    def __init__(self, run: Run, checkpoint: Path | None) -> None:
        """`checkpoint`: the one that the run is resumed from."""
        self.run = run
        self.path = run.output_dir / "history.jsonl"
        self.lines: list[dict[str, float]] = []
        if checkpoint is not None:
            self.lines = [json.loads(line) for line in (checkpoint / "history.jsonl").read_text().splitlines()]
        if run.accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def begin_again(self, lines: list[dict[str, float]]) -> None:
        """Replaces all lines: the run starts at its first step again."""
        self.lines = list(lines)
        if self.run.accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: dict[str, float]) -> None:
        """Writes a line to the file, and to the trackers."""
        self.lines.append(line)
        if self.run.accelerator.is_main_process:
            with Path(self.path).open("a") as file:
                file.write(json.dumps(line) + "\n")
        if self.run.config.report_to != "none":
            self.run.accelerator.log(line, step=int(line["step"]))


def evaluation_line(epoch: float, scores: dict[str, float], best: bool) -> str:
    """The line that is printed about an evaluation."""
    shown = {k.removeprefix("eval_"): v for k, v in scores.items() if not _is_detail(k)}
    text = "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
    return f"epoch {epoch:g}  {text}{'  (best)' if best else ''}"


def _is_detail(key: str) -> bool:
    """Scores by type or label, and times, are for the files."""
    name = key.removeprefix("eval_")
    of_all = ("f1_strict", "f1_macro", "f1_micro", "recall_macro")
    by_label = name.startswith(("f1_", "precision_", "recall_", "support_")) and name not in of_all
    return by_label or key.endswith(("_runtime", "_tokens"))
