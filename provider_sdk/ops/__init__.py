"""What runs the provider's side: settings, logs, metrics and traces. None of it holds a secret.

Each module is imported by its own name, so that a process pays for what it uses.
"""
