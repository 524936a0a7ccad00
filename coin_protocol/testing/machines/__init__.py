"""State machines for an implementation of the protocol, ours or yours. They need Hypothesis.

Each drives a system through a `Protocol` of few operations, over any order of events, and holds it
against a model that is written down from docs/protocol.md once more. Give a machine what makes your
system, and pytest or unittest runs it:

    class MyTest(ExposureMachine):
        make = MySystem  # an `ExposureSystem`, made of `Terms`

    TestMine = MyTest.TestCase

Numbers of examples and of steps are those of the Hypothesis profile that is loaded when
`TestCase` is asked for; `TestMine.settings = settings(…)` sets others.
"""

from coin_protocol.testing.machines.exposure import ExposureMachine
from coin_protocol.testing.machines.log import LogMachine
from coin_protocol.testing.machines.provider import ProviderMachine
from coin_protocol.testing.machines.rotation import RotationMachine
from coin_protocol.testing.machines.rules import RuleBrokenError
from coin_protocol.testing.machines.stream import StreamMachine
from coin_protocol.testing.machines.verifier import VerifierMachine
from coin_protocol.testing.machines.witness import WitnessMachine

__all__ = [
    "ExposureMachine",
    "LogMachine",
    "ProviderMachine",
    "RotationMachine",
    "RuleBrokenError",
    "StreamMachine",
    "VerifierMachine",
    "WitnessMachine",
]
