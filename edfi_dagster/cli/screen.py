"""How commands print: a message is one line, however long; only tables fit the width of a terminal."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.table import Table

# Wide enough that no table is ever folded.
_UNLIMITED = 100_000


class Screen(Console):
    """Standard output, or standard error.

    A message is never wrapped and never read as markup, so a path in it can be copied and a script can search for it.
    A table is folded at the width of the terminal, or at COLUMNS if that is set. Elsewhere it is not folded.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not self.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
            self.width = _UNLIMITED

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console.print` does; text is not wrapped."""
        if any(isinstance(one, Table) for one in objects):
            options.setdefault("soft_wrap", False)
        super().print(*objects, **options)
