"""What every process that runs unattended needs: settings, logs, metrics, traces.

Each module is imported by its own name, so that a process pays for what it uses. None of it
holds a secret.
"""
