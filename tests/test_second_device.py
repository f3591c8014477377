"""The cases of ``tests/second_device.py`` have a process of their own."""

import subprocess
import sys
from pathlib import Path


def test_the_library_on_a_second_device() -> None:
    """PyTorch counts its devices at the first gradient of a process: one that is made later has none."""
    cases = Path(__file__).with_name("second_device.py")
    done = subprocess.run([sys.executable, "-m", "pytest", "-v", str(cases)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
