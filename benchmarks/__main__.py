"""`make bench`: every benchmark, one after the other, each in a process of its own.

Names of benchmarks as arguments run those alone. Some need data below $ATELIER_DATA, some run a
reference beside ours when an environment variable says where it is: their docstrings tell.
"""

import subprocess
import sys
import time
from pathlib import Path

NOT_RUN = {
    *("__init__", "__main__", "golden", "measured", "shakespeare", "table", "nanogpt"),
    *("context_mixing", "gpt_training", "mixture", "ray_nodes"),
}


def main(wanted: list[str]) -> int:
    """Run the wanted benchmarks, by default all; returns how many failed."""
    known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in NOT_RUN)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or known:
        print(f"== {name}", flush=True)
        started_at = time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        print(f"== {name}: {time.monotonic() - started_at:.0f} s, exit {done.returncode}\n")
        if done.returncode:
            failed.append(name)
    print(f"{len(wanted or known) - len(failed)} ran to the end; failed: {failed or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
