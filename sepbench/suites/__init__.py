"""Suites: frozen tasks as TOML files, one per suite, and the loader that checks them against their digests."""

NOT_FROZEN = "not-frozen-"
"""How the digest of a task begins whose pair list was made by a rule and never frozen."""
