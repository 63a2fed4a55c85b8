"""The registry: all of the platform's state, in Postgres (schema `penstock`).

Each function runs the statements that stand beside it, on a connection that its caller holds, so that the caller
decides what is one transaction.
"""
