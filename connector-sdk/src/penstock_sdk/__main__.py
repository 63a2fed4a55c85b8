"""`python -m penstock_sdk`: the entry point of every connector image."""

from __future__ import annotations

import os
import sys

from penstock_sdk._runtime.credential_files import take_credentials
from penstock_sdk._runtime.masking_parent import SecretsChannel, run_as_child


def main() -> int:
    """Run the attempt in a child process, and return its exit code."""
    try:
        credentials = take_credentials(os.environ)
    except (OSError, UnicodeDecodeError) as error:
        place = getattr(error, "filename", "")
        sys.stderr.write(f"a credential cannot be read: {type(error).__name__}: {place}\n")
        return 1

    def run(tell_secrets: SecretsChannel) -> int:
        from penstock_sdk._runtime.main import run_attempt

        return run_attempt(credentials, tell_secrets)

    return run_as_child(credentials, run)


sys.exit(main())
