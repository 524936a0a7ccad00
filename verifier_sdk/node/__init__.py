"""A verifier that runs unattended: takes receipts, audits them, keeps what it found.

settings ─▶ assembly ─┬─ intake     receipts in: checked, sampled, on disk before the reply
                      ├─ queue      which audit is next: the database's, or NATS JetStream's
                      ├─ worker     one audit to its verdict, written down once
                      ├─ service    gRPC
                      └─ http       receipts and verdicts, the log, the pages
"""
