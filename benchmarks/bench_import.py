"""How long `import dlbook` takes beyond `import torch`, each time in a fresh process."""

import subprocess
import sys

from benchmarks.harness import Row, summary

CODE = "import time, torch; start = time.perf_counter(); import dlbook; print(time.perf_counter() - start)"


def run(rounds: int) -> list[Row]:
    """torch is loaded first and its time not counted."""
    seconds = [
        float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds + 1)
    ]
    return [summary("import dlbook, beyond torch", seconds[1:], "s", 0.1)]
