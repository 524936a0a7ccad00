"""What a verifier node remembers of the blocks that providers opened, across sessions.

memory = SqlMemory(engine, profiles=[profile])
found = memory.lookup(
    vectors, provider=name, profile_sha256=profile.digest, excluding=commitment_sha256
)
with writing(engine) as connection:  # beside the verdict
    memory.remember(connection, vectors, …)
"""

from verifier_sdk.memory.keeper import Sizes
from verifier_sdk.memory.search import Recalled
from verifier_sdk.memory.sql import MemoryState, SqlMemory
from verifier_sdk.memory.tables import add_tables

__all__ = ["MemoryState", "Recalled", "Sizes", "SqlMemory", "add_tables"]
