"""Prediction stays within its memory bound; the full case is `benchmarks/memory.py` (Linux: it reads /proc)."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"


def test_prediction_of_ten_thousand_rows_stays_under_two_gigabytes(backend_name):
    """One draw: further draws add their parameters and outputs only, 1.7 MB each. All rows at once would take 4 GB."""
    command = [sys.executable, str(SCRIPT), "--backend", backend_name, "--draws", "1", "--rows", "10000"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(re.search(r"peak (\d+) MiB", result.stdout).group(1))
    assert peak < 2048, result.stdout
