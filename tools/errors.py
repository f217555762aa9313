"""Errors of the command line.

ToolError      a command cannot do what was asked; the message says what to do (exit code 1)
└── UsageError the call itself is wrong (exit code 2)
"""

from __future__ import annotations


class ToolError(Exception):
    """What happened, where, and what to do about it."""


class UsageError(ToolError):
    """An argument or option is wrong, or two of them do not fit together."""
