"""The two kinds: their models, their CRDs, version ranges and conditions. Pure: nothing here talks to anything."""
