"""What an ODS of a given version can do. Every choice that depends on the version is made from this."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, int]


@dataclass(frozen=True)
class Abilities:
    """Facts of one generation of the ODS/API (api.md, sections 1.3, 3.1, 4 and 5).

    ``change_versions``: change queries, and with them windows and deletes; ``counts``: Total-Count of records;
    ``counts_changes``: Total-Count of deletes and key changes; ``key_changes``: /keyChanges is there for certain;
    ``cursor``: pages by token, and /partitions; ``first_page_has_token``: a window's first page can be continued
    (DMS orders a window by change version and then gives no token, so a walk must begin at /partitions);
    ``repeats_rows``: it is known to count and serve rows twice (ODS-5090, ODS-5174); ``namespaces``: the namespace is part of an endpoint's path; ``largest_page``: rows that no page may exceed, where
    that does not depend on the host.
    """

    change_versions: bool
    counts: bool
    counts_changes: bool
    key_changes: bool
    cursor: bool
    first_page_has_token: bool
    repeats_rows: bool
    namespaces: bool
    largest_page: int | None

    @classmethod
    def of(cls, version: Version) -> Abilities:
        return cls(
            change_versions=version >= (5, 0),
            counts=version >= (3, 0),
            counts_changes=version >= (6, 0),
            key_changes=version >= (6, 0),
            cursor=version >= (7, 3),
            first_page_has_token=(7, 3) <= version < (8, 0),
            repeats_rows=(5, 0) <= version < (5, 3),
            namespaces=version >= (3, 0),
            largest_page=None if version >= (3, 0) else 100,
        )
