"""A Ray cluster of several nodes on this machine, a sweep on it, and what happens to it: a node is lost, or Ctrl-C comes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster
from sweep_cases import epochs_of, make_jobs

from cnn_reg.sweeps.jobs import Job

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def main(event: str, grid: str, out: str, seeds: str, epochs: str) -> None:
    """Prints what became of the sweep when a node is ``lost`` or the sweep is ``interrupted``, while a run goes on on each node."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    jobs = make_jobs(Path(out), int(seeds), int(epochs))
    sweep = subprocess.Popen([sys.executable, "-m", "cnn_reg", "sweep", grid, "--out", out, "--ray", cluster.address])
    try:
        while sum(epochs_of(job.folder) >= 2 for job in jobs) < len(nodes) and sweep.poll() is None:
            time.sleep(0.02)
        if event == "interrupted":
            sweep.send_signal(signal.SIGINT)
            found = {"code": sweep.wait(60)}
        else:
            found = lose(cluster, nodes[0], sweep, jobs)
        print(json.dumps(found))
    finally:
        sweep.kill()
        cluster.shutdown()


def lose(cluster: Cluster, node: object, sweep: subprocess.Popen[bytes], jobs: list[Job]) -> dict[str, object]:
    """The sweep's exit code, how many epochs each run had when the node was lost, and the fewest it had from then on."""
    cluster.remove_node(node, allow_graceful=False)
    lost = least = [epochs_of(job.folder) for job in jobs]
    end = time.monotonic() + 400
    while sweep.poll() is None and time.monotonic() < end:
        least = [min(before, epochs_of(job.folder)) for before, job in zip(least, jobs)]
        time.sleep(0.02)
    return {"code": sweep.poll(), "lost": lost, "least": least}


if __name__ == "__main__":
    main(*sys.argv[1:])
