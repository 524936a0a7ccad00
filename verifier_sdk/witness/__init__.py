"""Witnesses: they cosign the heads of logs, and see to it that no log rewrites its past.

`coin witness serve` runs one (`app`, `server`); a log asks its witnesses through `witnesses`.
Source: https://c2sp.org/tlog-witness v1.0.0. docs/witness.md tells how to run one.
"""
