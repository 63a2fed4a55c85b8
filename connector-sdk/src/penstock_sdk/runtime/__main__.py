"""`python -m penstock_sdk.runtime`: the entry point of every connector image."""

from __future__ import annotations

import sys

from penstock_sdk.runtime.main import main

sys.exit(main())
