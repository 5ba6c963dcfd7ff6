"""What training takes of the machine."""

import time

from tasks.tracking.system_metrics import SystemMetrics


def test_work_and_memory_are_seen_and_idleness_too() -> None:
    load = SystemMetrics()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    busy = load.numbers()
    time.sleep(0.3)
    idle = load.numbers()
    block = bytearray(b"x" * 80_000_000)
    filled = load.numbers()

    assert busy["system/process_cpu_percent"] > idle["system/process_cpu_percent"]
    grown = filled["system/process_memory_megabytes"] - idle["system/process_memory_megabytes"]
    assert 40 < grown < 300
    assert len(block) == 80_000_000
    assert all(name.startswith("system/") for name in busy)  # how MLflow tells them apart
