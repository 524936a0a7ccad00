"""Hooks into serving stacks. Each is a module of its own, imported by the stack that it is for.

None of them imports the stack before it is used there; docs/integrations says which hook gives
what, and when the gateway is the better choice.
"""
