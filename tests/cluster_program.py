"""A Ray cluster of several nodes on this machine, a sweep on it, and the loss of a node while both of its runs go on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster
from sweep_cases import epochs_of, make_jobs

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def main(grid: str, out: str, seeds: str, epochs: str) -> None:
    """Prints the sweep's exit code, how many epochs each run had when the node was lost, and the fewest it had from then on."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    jobs = make_jobs(Path(out), int(seeds), int(epochs))
    sweep = subprocess.Popen([sys.executable, "-m", "cnn_reg", "sweep", grid, "--out", out, "--ray", cluster.address])
    try:
        while not all(epochs_of(job.folder) >= 2 for job in jobs) and sweep.poll() is None:
            time.sleep(0.02)
        cluster.remove_node(nodes[0], allow_graceful=False)
        lost = least = [epochs_of(job.folder) for job in jobs]
        end = time.monotonic() + 400
        while sweep.poll() is None and time.monotonic() < end:
            least = [min(before, epochs_of(job.folder)) for before, job in zip(least, jobs)]
            time.sleep(0.02)
        print(json.dumps({"code": sweep.poll(), "lost": lost, "least": least}))
    finally:
        sweep.kill()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
