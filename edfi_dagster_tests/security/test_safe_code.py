"""What the code never does, looked for in the code itself."""

from __future__ import annotations

import ast
import socket
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from dagster_webserver.cli import DEFAULT_WEBSERVER_HOST
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import edfi_dagster
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS

ROOT = Path(edfi_dagster.__file__).parent
PROJECT = ROOT.parent

NEVER = {
    "eval", "exec", "os.system", "os.popen", "pickle.loads", "pickle.load", "marshal.loads", "shelve.open", "dill.loads",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.dump_all", "tempfile.mktemp", "pandas.read_pickle", "pd.read_pickle",
    "requests.get", "requests.post", "requests.request", "requests.Session", "urllib.request.urlopen", "ssl._create_unverified_context",
    "random.seed", "telnetlib.Telnet", "os.chmod", "xml.etree.ElementTree.parse", "joblib.load",
}  # fmt: skip
# The demo's districts and the wait for the sandbox: their only host is the sandbox of this machine.
EXCEPTIONS = {
    ("cli/district.py", "requests.Session"),
    ("sandbox/shared.py", "requests.get"),
    # Runway: one of its own for each request, which follows nothing (test_runway.py).
    ("earthbeam/runway_http.py", "requests.Session"),
}


@cache
def modules() -> dict[Path, list[ast.AST]]:
    return {p.relative_to(ROOT): list(ast.walk(ast.parse(p.read_text()))) for p in sorted(ROOT.rglob("*.py"))}


def calls() -> Iterator[tuple[Path, str, ast.Call]]:
    for path, nodes in modules().items():
        for node in nodes:
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), node


def test_nothing_runs_or_unpickles_what_it_is_given() -> None:
    found = [(str(path), name) for path, name, _ in calls() if name in NEVER]
    assert set(found) - EXCEPTIONS == set()


def test_yaml_is_loaded_by_safe_loaders_alone() -> None:
    loads = [(path, ast.unparse(node)) for path, name, node in calls() if name.endswith("yaml.load")]
    assert [(str(path), text) for path, text in loads if not text.endswith("Loader=_Loader)")] == []
    rendering = (ROOT / "earthbeam" / "rendering.py").read_text()
    assert '_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)' in rendering
    classes = [node for nodes in modules().values() for node in nodes if isinstance(node, ast.ClassDef)]
    bases = [ast.unparse(base) for node in classes for base in node.bases]
    assert not {"yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader"} & set(bases)


def test_no_shell_and_no_certificate_left_unlooked_at() -> None:
    for path, name, node in calls():
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("shell", "False") == "False", f"{path}: {name}"
        assert given.get("verify", "True") != "False", f"{path}: {name}"


def test_every_listener_is_on_this_machine_alone() -> None:
    for path, name, node in calls():
        addresses = [ast.unparse(argument) for argument in node.args]
        if name.endswith((".bind", "HTTPServer", "uvicorn.run", "uvicorn.Config")) and "host" not in str(
            path
        ):
            told = " ".join([*addresses, *(ast.unparse(keyword.value) for keyword in node.keywords)])
            assert "0.0.0.0" not in told and "::" not in told, f"{path}: {told}"
            if name.endswith((".bind", "HTTPServer")):
                assert "'127.0.0.1'" in told, f"{path}: {told}"
    assert DEFAULT_WEBSERVER_HOST == "127.0.0.1"
    demo = (ROOT / "cli" / "demo.py").read_text()
    assert '"-h", "127.0.0.1"' in demo


def test_the_sandbox_answers_no_other_machine() -> None:
    with SandboxServer([ODS], rows={"students": 1}) as server:
        own = _own_address()
        if own is None:
            pytest.skip("this machine has no address but its loopback's")
        with pytest.raises(OSError), socket.create_connection((own, server.port), timeout=2):
            raise AssertionError("the sandbox answered")


def _own_address() -> str | None:
    """The address this machine is known by to others; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith(("127.", "0.")) else address


# -- what is installed ----------------------------------------------------------------------------------------


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """Name → what the lock says and its hashes."""
    text = (PROJECT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = {}
    for line in filter(None, lines):
        head, *hashes = line.split("--hash=")
        requirement = Requirement(head.strip())
        found[canonicalize_name(requirement.name)] = requirement, [one.strip() for one in hashes]
    return found


def test_every_locked_package_is_one_version_with_its_hashes() -> None:
    lock = locked()
    assert len(lock) > 100
    for name, (requirement, hashes) in lock.items():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, name
        assert requirement.url is None, name
        assert hashes and all(len(one) == 71 and one.startswith("sha256:") for one in hashes), name
    text = (PROJECT / "requirements.lock").read_text()
    assert not [line for line in text.splitlines() if line.startswith("-") or "://" in line.split("#")[0]]


def test_the_lock_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *project["optional-dependencies"]["production"],
    ]
    lock = locked()
    for text in wanted:
        requirement = Requirement(text)
        found, _ = lock[canonicalize_name(requirement.name)]
        (specifier,) = found.specifier
        assert Version(specifier.version) in requirement.specifier, text


def test_the_lock_has_the_versions_that_bound_what_is_unpacked() -> None:
    """urllib3 before 2.6 decompresses a whole chunk at once, and follows any number of encodings."""
    found, _ = locked()["urllib3"]
    (specifier,) = found.specifier
    assert Version(specifier.version) >= Version("2.6")


def test_ci_installs_nothing_but_the_lock() -> None:
    script = (PROJECT / ".ci" / "run").read_text()
    installs = [line for line in script.splitlines() if "pip install" in line]
    assert installs
    assert all("-r requirements.lock" in line or "--no-deps -e ." in line for line in installs)
