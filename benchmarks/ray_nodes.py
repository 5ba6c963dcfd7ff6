"""A Ray cluster of some nodes on this machine, for benchmarks and tests.

It lives in a process of its own, which ends with whoever started it; each node has one CPU.

    python -m benchmarks.ray_nodes 2

A line `remove` on its input removes the last node at once, as if its machine had failed; `runs`
asks for the ids of that node's processes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

import psutil

from tasks.store.files import project_root

SECONDS_TO_END = 60


class RayNodes:
    """So many nodes, for the time of a block; `environment` is what makes `ray:auto` find them."""

    def __init__(self, number: int) -> None:
        # Sockets lie below it, and their paths must be short.
        self._folder = tempfile.mkdtemp(prefix="ray-nodes-", dir="/tmp")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ray_nodes", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=project_root(),
            env={**os.environ, "RAY_TMPDIR": self._folder},
        )
        self.environment: dict[str, str] = {}

    def __enter__(self) -> "RayNodes":
        self.environment = {"RAY_ADDRESS": self._line(), "RAY_TMPDIR": self._folder}
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=SECONDS_TO_END)
        finally:
            self._process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def remove_the_last(self) -> None:
        """Kill all processes of the last node."""
        self._answer_to("remove")

    def processes_of_the_last(self) -> set[int]:
        """The ids of the processes that run trials on the last node."""
        return set(json.loads(self._answer_to("runs")))

    def _answer_to(self, request: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the Ray cluster did not start, or it ended")
        return line


def main() -> None:
    """Start the nodes, say where they are, and end with the input."""
    # Before the import: no reports, and loopback for this machine's address.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    from ray.cluster_utils import Cluster

    each = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **each})
    others = [cluster.add_node(**each) for _ in range(int(sys.argv[1]) - 1)]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints must not mix with our lines
    print(cluster.address, file=replies, flush=True)
    for request in sys.stdin:
        if request.strip() == "runs":
            print(json.dumps([each.pid for each in _runs(others[-1])]), file=replies, flush=True)
        else:
            _fail(cluster, others.pop())
            print("removed", file=replies, flush=True)
    cluster.shutdown()


def _runs(node: Any) -> list[psutil.Process]:
    (raylet,) = node.all_processes["raylet"]
    return psutil.Process(raylet.process.pid).children(recursive=True)


def _fail(cluster: Any, node: Any) -> None:
    """Kill a node with what it runs: processes of trials outlive their raylet for a while.

    They do nothing more from the first moment: to remove a node takes Ray some seconds.
    """
    runs = _runs(node)
    for each in runs:
        with suppress(psutil.NoSuchProcess):
            each.suspend()
    cluster.remove_node(node, allow_graceful=False)
    for each in runs:
        with suppress(psutil.NoSuchProcess):
            each.kill()


if __name__ == "__main__":
    main()
