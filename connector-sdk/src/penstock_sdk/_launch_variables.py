"""How a launcher gives credentials to a connector's process. `penstock_sdk.protocol` exports these names.

They are here because the parent process of a connector needs them, and imports neither pydantic nor the protocol.
"""

from __future__ import annotations

CREDENTIAL_VARIABLE_PREFIX = "PENSTOCK_CREDENTIAL_"
"""What the environment variable of a credential begins with; the credential's name follows. An older launcher sets them."""
CREDENTIALS_DIRECTORY_VARIABLE = "PENSTOCK_CREDENTIALS_DIRECTORY"
"""Environment variable of a connector's process: the directory with one file for each credential, named by it."""
