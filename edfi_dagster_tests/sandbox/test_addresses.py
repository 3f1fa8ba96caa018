"""Tenant, instance and year in the paths of each version and API mode."""

from __future__ import annotations

import datetime as dt

import pytest
import requests

from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.sandbox.addresses import AddressBook
from edfi_dagster.sandbox.generations import generation
from edfi_dagster_tests.sandbox.api import Api

NAMES = ["grand_bend/2025", "grand_bend/2026", "lakeview/2025"]
SMALL = {"students": 13}
MODES = ("shared_instance", "sandbox", "district_specific", "year_specific", "instance_year_specific")


def get(url: str) -> requests.Response:
    return requests.get(url, timeout=10)


@pytest.mark.parametrize(("version", "mode"), [*(("6.1", mode) for mode in MODES), ("5.3", "year_specific")])
def test_every_mode_serves_every_ods(version: str, mode: str) -> None:
    with SandboxServer(NAMES, ods_version=version, mode=mode, rows=SMALL) as server:
        years = set()
        for name in NAMES:
            api = Api(server, name)
            row = api.rows("studentSchoolAssociations", limit=1)[0]
            years.add((name, row["schoolYearTypeReference"]["schoolYear"], api.rows("schools")[0]["id"]))
            assert api.newest == server.store(name).newest
            assert get(api.sections).json()[0]["name"] == "Descriptors"
            assert get(f"{api.documents}/descriptors/swagger.json").json()["swagger"] == "2.0"
            root = get(f"{server.url_of(name)}/").json()
            assert root["apiMode"].lower().replace(" ", "_") == mode
            api.session.close()
    assert [(name, year) for name, year, _ in sorted(years)] == [(n, int(n[-4:])) for n in sorted(NAMES)]
    assert len({row_id for *_, row_id in years}) == 3


PATHS = {
    "year_specific": ("", "/grand_bend", "/data/v3/2025", "/changeQueries/v1/2025", "/metadata/data/v3/2025"),
    "instance_year_specific": (
        "/grand_bend",
        "",
        "/data/v3/grand_bend/2025",
        "/changeQueries/v1/grand_bend/2025",
        "/metadata/data/v3/grand_bend/2025",
    ),
}


@pytest.mark.parametrize("mode", PATHS)
def test_instance_and_year_stand_behind_the_area(mode: str) -> None:
    instance, base, data, changes, metadata = PATHS[mode]
    with SandboxServer(NAMES, ods_version="6.1", mode=mode, rows=SMALL) as server:
        root = server.url_of("grand_bend/2025")
        assert root == f"{server.url}{base}"
        grant = {"grant_type": "client_credentials"}
        token = requests.post(
            f"{root}{instance}/oauth/token", data=grant, auth=server.credentials, timeout=10
        )
        bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
        for path in (f"{data}/ed-fi/schools", f"{changes}/availableChangeVersions"):
            assert requests.get(f"{root}{path}", headers=bearer, timeout=10).status_code == 200
            other_year = path.replace("2025", "2026")
            assert requests.get(f"{root}{other_year}", headers=bearer, timeout=10).status_code == 200
            assert (
                requests.get(f"{root}{path.replace('2025', '2031')}", headers=bearer, timeout=10).status_code
                == 404
            )
        document = get(f"{root}{metadata}/resources/swagger.json").json()
        assert document["basePath"] == f"{base}{data}/"
        assert len(get(f"{root}{metadata}/dependencies").json()) > 300


def test_discovery_of_year_modes_holds_the_calendar_year_and_a_placeholder() -> None:
    year = dt.datetime.now(dt.UTC).year
    with SandboxServer(NAMES, ods_version="6.1", mode="instance_year_specific", rows=SMALL) as server:
        urls = get(f"{server.url}/").json()["urls"]
        assert urls["dataManagementApi"] == f"{server.url}/data/v3/{{instance}}/{year}"
        assert urls["oauth"] == f"{server.url}/{{instance}}/oauth/token"
        assert urls["changeQueries"] == f"{server.url}/changeQueries/v1/{{instance}}/{year}"
        assert urls["openApiMetadata"] == f"{server.url}/metadata/{{instance}}/{year}"
    with SandboxServer(NAMES, ods_version="5.3", rows=SMALL) as server:
        root = get(f"{server.url}/lakeview/").json()
        assert root["apiMode"] == "Year Specific"
        assert list(root["urls"]) == [
            "dependencies",
            "openApiMetadata",
            "oauth",
            "dataManagementApi",
            "xsdMetadata",
        ]
        assert root["urls"]["dataManagementApi"] == f"{server.url}/lakeview/data/v3/{year}"
        assert get(f"{server.url}/").status_code == 404


def test_discovery_of_shared_modes_needs_nothing_filled_in() -> None:
    with SandboxServer([""], ods_version="6.1", rows=SMALL) as server:
        root = get(f"{server.url}/").json()
        assert (root["version"], root["apiMode"]) == ("6.1", "Shared Instance")
        assert root["urls"]["dataManagementApi"] == f"{server.url}/data/v3/"
        assert [model["version"] for model in root["dataModels"]] == ["4.0.0-a", "1.1.0"]
        assert "applicationName" not in root


@pytest.mark.parametrize(
    ("version", "standard"), [("7.0", "4.0.0"), ("7.1", "5.0.0"), ("7.2", "5.1.0"), ("7.3", "5.2.0")]
)
def test_7_x_has_prefixes_placeholders_and_no_mode(version: str, standard: str) -> None:
    with SandboxServer(NAMES[:1], ods_version=version, rows=SMALL) as server:
        root = get(f"{server.url}/").json()
        filled = get(f"{server.url}/grand_bend/2025/").json()
        assert (root["version"], root["dataModels"][0]["version"]) == (version, standard)
        assert "apiMode" not in root
        assert root["urls"]["oauth"].endswith("/{tenantIdentifier}/{schoolYearFromRoute}/oauth/token")
        assert filled["urls"]["oauth"] == f"{server.url}/grand_bend/2025/oauth/token"
        assert ("oauthTokenIntrospection" in root["urls"]) == (version == "7.3")


def test_tokens_are_shared_by_the_years_of_a_tenant_only() -> None:
    book = AddressBook(NAMES, generation("6.1"), "instance_year_specific")
    assert book.security_of("grand_bend/2025") == book.security_of("grand_bend/2026")
    assert book.security_of("grand_bend/2025") != book.security_of("lakeview/2025")
    book = AddressBook(NAMES, generation("6.1"), "shared_instance")
    assert book.security_of("grand_bend/2025") != book.security_of("grand_bend/2026")


@pytest.mark.parametrize(
    ("version", "mode", "names", "message"),
    [
        ("7.1", "year_specific", ["a/2025"], "no API modes"),
        ("6.1", "per_year", ["a/2025"], "unknown API mode 'per_year'"),
        ("6.1", "year_specific", ["a"], "names that end in a school year"),
        ("6.1", "instance_year_specific", ["2025"], "an instance and a school year"),
        ("8.0", None, ["a/2025"], "7.3, not 8.0"),
    ],
)
def test_wrong_versions_and_modes_are_refused(
    version: str, mode: str | None, names: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SandboxServer(names, ods_version=version, mode=mode)


def test_the_control_routes_go_by_the_name_in_every_mode() -> None:
    with SandboxServer(NAMES[:2], ods_version="6.1", rows=SMALL) as server:
        summary = get(f"{server.url}/Grand_Bend/2026/_control/summary").json()
    assert summary["counts"]["ed-fi/students"] == 13
