"""The pure interpreter of workflows. `interpreter` opens with what replay is; the names below are what others use."""

from dalsegno.core.interpreter.answers import ANSWERS
from dalsegno.core.interpreter.asked import (
    Advance,
    CancelledOut,
    Continued,
    Finished,
    Raised,
    RunOutcome,
    Waiting,
)
from dalsegno.core.interpreter.interpreter import Interpreter
from dalsegno.core.interpreter.tokens import Token, parse_token, secret_of
from dalsegno.core.interpreter.views import FiberView

__all__ = [
    "ANSWERS",
    "Advance",
    "CancelledOut",
    "Continued",
    "FiberView",
    "Finished",
    "Interpreter",
    "Raised",
    "RunOutcome",
    "Token",
    "Waiting",
    "parse_token",
    "secret_of",
]
