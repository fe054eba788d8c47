"""The batch files for Slurm: what they start on each node and in each task, with Slurm's variables set by hand.

`srun` and `scontrol` are stand-ins, since a cluster is not there; docs/clusters.md tells what a real one did.
"""

import os
import shlex
import shutil
import subprocess

import pytest
from accelerate.commands.launch import launch_command_parser
from processes import ROOT

from recipes import compare, ner, search

FOLDER = ROOT / "recipes/configs/slurm"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")


@pytest.fixture
def started(tmp_path):
    """Runs a batch file, and returns the words of the last program that it starts, `python` or `accelerate`."""

    def program(name, text):
        (tmp_path / name).write_text(f"#!{BASH}\n{text}\n")
        (tmp_path / name).chmod(0o755)

    program("srun", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"')
    program("scontrol", 'for i in 7 8; do echo "node$i of $3"; done')
    for name in ("python", "accelerate"):
        program(name, 'printf "%q " "$@"\necho "${SRUN_CPUS_PER_TASK:-}" > cpus')

    def start(file, *words, **variables):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        done = subprocess.run(
            [BASH, FOLDER / file, *words], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        return shlex.split(done.stdout)

    return start


def test_every_node_joins_the_same_training(started):
    words = ["ner", "--dataset_name", "samples", "--output_dir", "runs/a b"]
    for node in ("0", "1"):
        launch = started(
            *("training.sbatch", *words),
            SLURM_JOB_NODELIST="node[7-8]", SLURM_JOB_ID="123", SLURM_JOB_NUM_NODES="2", SLURM_NODEID=node,
            SLURM_GPUS_ON_NODE="4", PRECISION="bf16",
        )  # fmt: skip
        asked = launch_command_parser().parse_args(launch[1:])
        assert launch[0] == "launch"
        assert (asked.num_machines, asked.num_processes, asked.machine_rank) == (2, 8, int(node))
        assert (asked.main_process_ip, asked.main_process_port) == ("node7 of node[7-8]", 20123)
        assert (asked.multi_gpu, asked.mixed_precision, asked.module) == (True, "bf16", True)
        assert asked.training_script == "recipes"
        assert asked.training_script_args == [*words, "--resume_from_checkpoint", "true"]
    alone = started(
        *("training.sbatch", *words),
        SLURM_JOB_NODELIST="n",
        SLURM_JOB_ID="1",
        SLURM_JOB_NUM_NODES="1",
        SLURM_NODEID="0",
    )
    asked = launch_command_parser().parse_args(alone[1:])
    assert (asked.num_processes, asked.mixed_precision, asked.multi_gpu) == (1, "no", False)


def test_the_tasks_of_an_array_share_the_runs_of_a_comparison(started):
    words = ["--task", "ner", "--models", "rnn,lstm", "--dataset_name", "samples"]
    parts = []
    for task in ("4", "6", "8"):
        module, *rest = started(
            *("compare.sbatch", *words),
            SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_MIN="4", SLURM_ARRAY_TASK_COUNT="3",
            SLURM_ARRAY_TASK_STEP="2",
        )[1:]  # fmt: skip
        assert module == "recipes"
        assert rest[0] == "compare"
        parts.append(compare.parse(rest[1:]).part)
    assert parts == [(1, 3), (2, 3), (3, 3)]
    assert compare.parse(started("compare.sbatch", *words)[3:]).part is None
    alone = started(
        "compare.sbatch", *words, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_TASK_MIN="2", SLURM_ARRAY_TASK_COUNT="1"
    )
    assert compare.parse(alone[3:]).part == (1, 1)


@pytest.mark.parametrize("file", ["training.sbatch", "compare.sbatch", "search.sbatch"])
def test_each_step_has_the_processors_of_its_job(file, started, tmp_path):
    variables = {"SLURM_JOB_NODELIST": "n", "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0"}
    for asked in ({}, {"SLURM_CPUS_PER_TASK": "8"}):
        started(file, "ner", "--dataset_name", "samples", **variables, **asked)
        assert (tmp_path / "cpus").read_text().strip() == asked.get("SLURM_CPUS_PER_TASK", "")


def test_a_task_of_a_search_is_the_command_itself(started):
    words = started("search.sbatch", "--task", "ner", "--dataset_name", "samples", "--output_dir", "runs/a b")
    assert words[:3] == ["-m", "recipes", "search"]
    assert search.parse(words[3:]).output_dir == "runs/a b"


def test_the_command_of_a_training_is_one_of_ours(started):
    launch = started(
        *("training.sbatch", "ner", "--dataset_name", "samples"),
        SLURM_JOB_NODELIST="n", SLURM_JOB_ID="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0", PROCESSES="2",
    )  # fmt: skip
    asked = launch_command_parser().parse_args(launch[1:])
    assert asked.num_processes == 2
    from finetune import cli

    assert cli.parse(ner.NerConfig, asked.training_script_args[1:]).resume_from_checkpoint == "true"
