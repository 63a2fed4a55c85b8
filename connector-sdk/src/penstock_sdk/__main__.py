"""`python -m penstock_sdk`: the entry point of every connector image."""

from __future__ import annotations

import sys

from penstock_sdk._runtime.main import main

sys.exit(main())
