"""Compares two hosts (two network namespaces of this machine, one process in each) with two processes on one host.

    sudo python benchmarks/two_hosts.py

It starts `accelerate launch --num_machines 2` in each namespace, with gloo on the CPU. Both share a file system. Then
it starts the same two processes on one host. It compares the SHA-256 of the weights, of the predictions, and of the
history without its times. The exit status is 1 if one differs. It needs root and iproute2, and removes the namespaces
at the end.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOSTS = {"finetune-a": "10.77.0.1", "finetune-b": "10.77.0.2"}
RECIPE = ["recipes/ner.py", "--dataset_name=samples", "--model_name_or_path=bilstm", "--num_train_epochs=4"]
RECIPE += ["--learning_rate=1e-2", "--per_device_train_batch_size=8", "--disable_tqdm=true"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("error: making network namespaces needs root")
    # Without a GPU the processes that `--multi_gpu` starts use the CPU.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        connect()
        try:
            hosts = []
            for rank, host in enumerate(HOSTS):
                command = ["ip", "netns", "exec", host, *LAUNCH, "--num_machines=2", f"--machine_rank={rank}"]
                command += [f"--main_process_ip={HOSTS['finetune-a']}", "--main_process_port=29511", *RECIPE]
                own = environment | {"GLOO_SOCKET_IFNAME": f"cable{rank}"}
                hosts.append(subprocess.Popen([*command, f"--output_dir={folder}/two_hosts"], cwd=ROOT, env=own))
            if any(host.wait() for host in hosts):
                raise SystemExit("error: a host failed")
        finally:
            disconnect()
        subprocess.run([*LAUNCH, *RECIPE, f"--output_dir={folder}/one_host"], cwd=ROOT, env=environment, check=True)
        equal = True
        for name in ("model.safetensors", "predictions_test.conll", "history.jsonl"):
            one, two = (digest(Path(folder) / run / name) for run in ("one_host", "two_hosts"))
            equal &= one == two
            print(f"{name}: one host {one[:16]}, two hosts {two[:16]}: {'equal' if one == two else 'DIFFERENT'}")
    raise SystemExit(0 if equal else 1)


def digest(path: Path) -> str:
    """The SHA-256 of a file; of a history without its times."""
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        content = json.dumps([{k: v for k, v in line.items() if "runtime" not in k} for line in lines]).encode()
    return hashlib.sha256(content).hexdigest()


def connect() -> None:
    """Makes two namespaces, each with one end of a virtual cable and an address."""
    disconnect()
    first, second = HOSTS
    for host in HOSTS:
        subprocess.run(["ip", "netns", "add", host], check=True)
    cable = ["ip", "link", "add", "cable0", "netns", first, "type", "veth", "peer", "name", "cable1", "netns", second]
    subprocess.run(cable, check=True)
    for rank, (host, address) in enumerate(HOSTS.items()):
        inside = ["ip", "-n", host]
        subprocess.run([*inside, "addr", "add", f"{address}/24", "dev", f"cable{rank}"], check=True)
        for device in (f"cable{rank}", "lo"):
            subprocess.run([*inside, "link", "set", device, "up"], check=True)


def disconnect() -> None:
    """Removes the namespaces, and with them the cable."""
    for host in HOSTS:
        subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


if __name__ == "__main__":
    main()
