"""An upstream and clients to load a gateway with, each in a process of its own."""
