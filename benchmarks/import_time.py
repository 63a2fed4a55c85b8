"""What `import penstock_sdk` costs over a bare Python, in processes taken in turn; and what a pod imports."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

ROUNDS = 15
MODULES = ("penstock_sdk", "penstock_sdk._runtime.main")


def seconds(code: str) -> float:
    """Return how long a Python takes that runs the code and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


for module in MODULES:
    seconds(f"import {module}")  # writes the bytecode
pairs = [(seconds("pass"), *(seconds(f"import {module}") for module in MODULES)) for _ in range(ROUNDS)]
bare = median(each[0] for each in pairs)
for place, module in enumerate(MODULES, 1):
    over = median(each[place] - each[0] for each in pairs)
    times = median(each[place] / each[0] for each in pairs)
    print(
        f"import {module}: {over * 1000:.0f} ms over a bare Python's {bare * 1000:.0f} ms, {times:.1f} times it", end=""
    )
    print(f" (medians of {ROUNDS} pairs)")
print("       limit: msgspec and typing for the contract; pydantic and httpx for the runtime")
