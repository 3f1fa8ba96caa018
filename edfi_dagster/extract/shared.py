"""One extract that several takers wait on, each for its own endpoints."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from edfi_dagster.extract.work import EndpointResult


class SharedExtract:
    """Runs ``results`` in a thread of its own; everything is pulled side by side however its takers come.

    ``takers`` is how many will come; the last of them waits for the end.
    """

    def __init__(self, results: Callable[[], Iterator[EndpointResult]], takers: int) -> None:
        self._results = results
        self._takers = takers
        self._news = threading.Condition()
        self._found: dict[str, list[EndpointResult]] = defaultdict(list)
        self._has_ended = False
        self._error: BaseException | None = None
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="extract")
        self._thread.start()

    def take(self, endpoints: Iterable[str]) -> tuple[list[EndpointResult], bool]:
        """The results of ``endpoints``, once each has one, and whether this is the last taker.

        The last gets whatever else there is as well, after the end: an endpoint has a second result where the ODS was
        restored meanwhile. Raises what the extract ended with, if it ended before these were there.
        """
        wanted = set(endpoints)
        with self._news:
            self._takers -= 1
            is_last = self._takers == 0
            self._news.wait_for(lambda: self._has_ended or (not is_last and wanted <= self._found.keys()))
            if self._error is not None and (is_last or not wanted <= self._found.keys()):
                raise self._error
            chosen = list(self._found) if is_last else wanted & self._found.keys()
            return [result for path in chosen for result in self._found.pop(path)], is_last

    def stop(self) -> None:
        """End the extract: what is being read is read to its end, nothing else is begun."""
        self._cancelled.set()
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for result in self._results():
                with self._news:
                    self._found[result.endpoint.path].append(result)
                    self._news.notify_all()
                if self._cancelled.is_set():
                    break
        except BaseException as raised:  # noqa: BLE001 - must reach the takers, who are in other threads
            error = raised
        with self._news:
            self._has_ended, self._error = True, error
            self._news.notify_all()
