"""Suites: frozen tasks as TOML files, one per suite, and the loader that checks them against their digests."""
