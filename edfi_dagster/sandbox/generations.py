"""What differs between the versions of the ODS/API that the sandbox speaks: every choice by version reads a field here.

Versions between those named differ in nothing that a client can see, except as ``GENERATIONS`` says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

ErrorStyle = Literal["message", "correlated", "problem"]

_URLS_OF_5 = ("dependencies", "openApiMetadata", "oauth", "dataManagementApi", "xsdMetadata")
_LIMIT_TEXT = (
    "Limit must be omitted or set to a value between 1 and max value defined in configuration file"
    " (defaultPageSizeLimit)."
)


@dataclass(frozen=True)
class Generation:
    """One version of the API over one data standard.

    ``version`` and ``standard`` are the sandbox's names of both; ``informational_version``, ``build``,
    ``standard_version`` and ``standard_title`` stand in the discovery document.

    Places: ``data_area`` is the path of the data; ``modes``: instance and year stand behind the area instead
    of tenant and context before it; ``oauth_by_instance``: ``/{instance}/oauth/token`` where there are instances;
    ``namespaces``: an endpoint's path begins with its namespace; ``documents``: discovery and metadata exist,
    with ``url_names`` in discovery, ``names_application`` its second property, ``openapi`` 2 or 3 the format.

    Tokens: ``token_steps`` 2 with an authorization code first; ``wrong_secret`` the status for bad credentials;
    ``bare_refusals``: a token request without usable credentials gets an empty 401; ``tokens_per_key``; and
    ``token_details``: ``token_info`` lists what the key may do.

    Answers: ``default_limit`` rows where no limit is asked (``None``: the host's maximum), which is ``page_limit``
    unless the host says otherwise; ``errors`` the form of error bodies; ``checks_offset``: negative ones are refused.

    Data: ``key_order``: rows come in key order, else by AggregateId; ``cursor``: page tokens and ``/partitions``;
    ``change_queries``; ``pascal_changes``: their casing; ``keyed_deletes``: ``/deletes`` has keys, a checked limit,
    a count, and hides what lives again; ``key_changes``: ``/keyChanges`` exists; ``cascades_bump``: a cascaded key
    change is a change of the referring row; ``refuses_key_changes``: else a PUT's new key is ignored where the key
    is fixed; ``modified_dates``: ``_lastModifiedDate``; ``snapshots``: a list of them chosen by identifier, one
    unnamed, or none; ``identification_filters``: collections filter by their identification codes, too;
    ``profiles_implied``: where one profile of a key covers an endpoint, requests need not name it.
    """

    version: str
    informational_version: str
    build: str
    standard: str
    standard_version: str
    standard_title: str

    data_area: tuple[str, str] = ("data", "v3")
    modes: bool = False
    oauth_by_instance: bool = False
    namespaces: bool = True
    documents: bool = True
    url_names: tuple[str, ...] = ()
    names_application: bool = False
    openapi: Literal[2, 3] = 3
    marks_domains: bool = False
    update_dependencies: bool = True

    token_steps: Literal[1, 2] = 1
    wrong_secret: Literal[400, 401] = 401
    bare_refusals: bool = False
    tokens_per_key: int | None = None
    token_details: bool = False

    default_limit: int | None = None
    page_limit: int = 500
    limit_text: str = _LIMIT_TEXT
    lowest_limit: int = 0
    checks_offset: bool = False
    errors: ErrorStyle = "problem"

    key_order: bool = True
    counts: bool = True
    cursor: bool = False
    change_queries: bool = True
    pascal_changes: bool = False
    keyed_deletes: bool = True
    key_changes: bool = True
    cascades_bump: bool = False
    refuses_key_changes: bool = True
    modified_dates: bool = True
    snapshots: Literal["listed", "single", None] = "single"
    identification_filters: bool = False
    profiles_implied: bool = True


_V6 = Generation(
    "6.1", "6.1", "6.1.1535.0", "4.0", "4.0.0-a", "The Ed-Fi Data Model 4.0a",
    modes=True,
    oauth_by_instance=True,
    url_names=(*_URLS_OF_5, "changeQueries"),
    openapi=2,
    errors="message",
    refuses_key_changes=False,
    modified_dates=False,
    snapshots="listed",
    profiles_implied=False,
)  # fmt: skip
_V5 = replace(
    _V6,
    version="5.3",
    informational_version="5.3",
    build="5.3.1146.0",
    standard="3.3",
    standard_version="3.3.1-b",
    standard_title="Latest Ed-Fi Data Model v3.3b",
    url_names=_URLS_OF_5,
    update_dependencies=False,
    wrong_secret=400,
    bare_refusals=True,
    default_limit=25,
    pascal_changes=True,
    keyed_deletes=False,
    key_changes=False,
)
_V2 = replace(
    _V5,
    version="2",
    informational_version="2.6",
    data_area=("api", "v2.0"),
    oauth_by_instance=False,
    namespaces=False,
    documents=False,
    token_steps=2,
    wrong_secret=401,
    page_limit=100,
    limit_text="Limit must be omitted or set to a value between 1 to 100",
    lowest_limit=1,
    counts=False,
    change_queries=False,
    snapshots=None,
)
_V7_1 = Generation(
    "7.1", "7.1", "7.1.1192.0", "5.0", "5.0.0", "The Ed-Fi Data Model 5.0",
    url_names=(*_URLS_OF_5, "changeQueries"),
    errors="correlated",
)  # fmt: skip
_V7_0 = replace(
    _V7_1,
    version="7.0",
    informational_version="7.0",
    build="7.0.1005.0",
    standard="4.0",
    standard_version="4.0.0",
    standard_title="The Ed-Fi Data Model 4.0",
    openapi=2,
)
_V7_2 = replace(
    _V7_1,
    version="7.2",
    informational_version="7.2",
    build="7.2.1223.0",
    standard="5.1",
    standard_version="5.1.0",
    standard_title="The Ed-Fi Data Model 5.1",
    errors="problem",
    limit_text="",
)
_V7_3 = Generation(
    "7.3", "7.3.1", "7.3.10000.0", "5.2", "5.2.0", "The Ed-Fi Data Model 5.2",
    names_application=True,
    url_names=(
        "dependencies", "openApiMetadata", "oauth", "oauthTokenIntrospection", "dataManagementApi", "xsdMetadata",
        "changeQueries",
    ),
    marks_domains=True,
    tokens_per_key=15,
    token_details=True,
    limit_text="",
    checks_offset=True,
    key_order=False,
    cursor=True,
    cascades_bump=True,
    identification_filters=True,
)  # fmt: skip

GENERATIONS = {found.version: found for found in (_V2, _V5, _V6, _V7_0, _V7_1, _V7_2, _V7_3)}
NEWEST = _V7_3


def generation(version: str) -> Generation:
    """The generation of an ODS/API version. Raises ``ValueError`` for one that the sandbox does not speak."""
    try:
        return GENERATIONS[version]
    except KeyError:
        known = ", ".join(GENERATIONS)
        raise ValueError(f"the sandbox speaks ODS/API {known}, not {version}") from None
