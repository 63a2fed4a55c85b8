"""Private: the runtime that runs a connector inside its pod. It is started as `python -m penstock_sdk`.

It claims the attempt, discovers the streams, reads and uploads their records, commits checkpoints, and reports the
outcome. Nothing here is part of the SDK's public API: `docs/authors/public-api.md` lists the public modules.
"""
