"""`python -m penstock_operator.cli`: the same as `penstock`."""

from __future__ import annotations

from penstock_operator.cli.main import main

main()
