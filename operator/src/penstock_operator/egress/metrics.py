"""The gateway's metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

TUNNELS = Gauge("penstock_egress_tunnels", "Connections of runs to their sources that are open now.")
BYTES = Counter("penstock_egress_bytes", "Bytes that runs sent to their sources and received.", ["direction"])
DENIALS = Counter("penstock_egress_denials", "Connections of runs that a rule forbade.")
