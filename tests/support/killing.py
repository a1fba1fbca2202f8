"""Programs that kill themselves −9 at a chosen call, for tests of what a killed command leaves behind."""

_KILLED = """
import os, signal, sys
from pathlib import Path
import seqdata.build.builder, seqdata.dataset.versions
import seqdata.{module} as module

whole = module.{function}
calls = 0

def killed(*arguments, **named):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **named)

module.{function} = killed
"""


def killed_at(module: str, function: str, call: int, program: str) -> str:
    """`program`, after lines that replace `seqdata.<module>.<function>` by one that kills the process at its `call`."""
    return _KILLED.format(module=module, function=function, call=call) + program
