"""What goes wrong with bundles and the tools that run them."""

from __future__ import annotations


class EarthbeamError(Exception):
    """A bundle's run cannot go on; the message says what to do and holds nothing of any student."""


class BundleError(EarthbeamError):
    """A bundle, or what it is given, is not right; the message names the file and what to change."""


class ToolFailed(EarthbeamError):
    """Earthmover, Lightbeam or a hook ended without doing its work."""


class ToolTimedOut(ToolFailed):
    """A child process was ended because it took too long, or went round in circles."""
