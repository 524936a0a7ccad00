"""Sample traffic: recorded reasoning, streamed and committed to as if it were generated."""

from provider_sdk.replay.replay import Replay, ReplayServicer
from provider_sdk.replay.traces import Trace, read_traces, shipped_traces

__all__ = ["Replay", "ReplayServicer", "Trace", "read_traces", "shipped_traces"]
