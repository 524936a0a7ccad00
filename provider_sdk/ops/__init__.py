"""What runs the provider's side: its settings, metrics and spans. None of it holds a secret.

Each module is imported by its own name, so that a process pays for what it uses.
"""
