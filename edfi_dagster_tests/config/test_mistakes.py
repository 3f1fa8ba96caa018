"""Every mistake an agency can make is answered with file, place and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from edfi_dagster.config import ConfigError, load_platform
from edfi_dagster_tests.config.documents import TENANTS, of_year, without, write_config

YEAR = "tenants.grand_bend.years.2025"
BUNDLE = "earthbeam: {bundles: {psat: {path: ., %s}}}"
SNOWFLAKE = "warehouse: {kind: snowflake, account: a-b, user: loader, %s}"


def tenant(code: str) -> str:
    return TENANTS.replace("grand_bend:", f"{code}:")


def school_year(year: str) -> str:
    return TENANTS.replace("2025:", f"{year}:")


def resources(entries: str) -> str:
    return f"extract: {{resources: {entries}}}"


MISTAKES = {
    # the file
    "empty file": ("# nothing\ntenants:".replace("tenants:", "#tenants:"), ["is empty", "tenant"]),
    "a list": ("[tenants:]", ["is not a mapping", "tenants:"]),
    "only text": ("'tenants:'", ["is not a mapping"]),
    "broken YAML": ("tenants: [1\nb: 2", ["line 2", "is not YAML", "check indentation, quotes and braces"]),
    "two documents": ("tenants: {}\n---\na: 1", ["is not YAML", "line 2"]),
    "tag": ("tenants: !include other.yaml", ["is not YAML", "line 1", "needs quotes"]),
    "undefined alias": ("tenants: *base", ["line 1", "undefined alias", "needs quotes"]),
    "block inside itself": ("tenants: &a {b: *a}", ["alias", "inside itself"]),
    # keys
    "unknown key": ("extract: {pagesize: 3, run_typ: bulk}", ["extract.run_typ (line 1)", "did you mean run_type?"]),
    "far-off key": ("airflow: {}", ["airflow (line 1): is not a key", "the keys are", "tenants, timezone"]),
    "unknown key of a kind": ("lake: {kind: s3, buckett: x}", ["lake.buckett", "bucket?", "lake.bucket (line 1): is missing"]),
    "key of the other kind": ("lake: {kind: local, root: x, bucket: y}", ["lake.bucket", "not a key", "compression, kind, root"]),
    "python name of a key": ("warehouse: {kind: duckdb, path: x, schema_name: y}", ["schema_name", "did you mean schema?"]),
    "unknown key of an endpoint": (resources("{students: {pageSize: 3}}"), ["extract.resources.students.pageSize", "did you mean page_size?"]),
    "unknown key of a year": (of_year("shedule: '0 2 * * *'"), [f"{YEAR}.shedule (line 10)", "did you mean schedule?"]),
    "key given twice": ("timezone: UTC\ntimezone: UTC\n", ["timezone (lines 1 and 2)", "given twice", "keep one"]),
    "key given twice on a line": ("extract: {run_type: bulk, run_type: default}", ["extract.run_type (line 1): is given twice"]),
    "year given twice": (TENANTS + "      2025: {}\n", ["tenants.grand_bend.years.2025 (lines 6 and 10)", "keep one"]),
    "year given twice, written apart": (TENANTS + "      2_025: {}\n", ["years.2_025 (lines 6 and 10)"]),
    # types
    "text for a number": ("extract: {max_concurrent_requests: '8'}", ["extract.max_concurrent_requests (line 1)", "a whole number, without quotes"]),
    "truth for a number": ("extract: {max_concurrent_requests: true}", ["a whole number"]),
    "zero": ("extract: {max_concurrent_requests: 0}", ["must be at least 1"]),
    "negative overlap": ("extract: {change_version_overlap: -1}", ["must be at least 0"]),
    "no hours": ("extract: {late_after_hours: 0}", ["must be more than 0"]),
    "infinite hours": ("extract: {late_after_hours: .inf}", ["must be a finite number"]),
    "text for truth": ("extract: {get_key_changes: 'yes'}", ["extract.get_key_changes", "true or false, without quotes"]),
    "text for a block": ("extract: bulk", ["extract (line 1): must be a block of keys and values"]),
    "text for a list": ("owners: team:data", ["owners (line 1): must be a list"]),
    "nothing for a block": ("extract:", ["extract (line 1): must be a block"]),
    "number for text": ("timezone: 6", ["timezone (line 1)", "must be text", "in quotes"]),
    "nothing for text": ("timezone:", ["timezone (line 1)", "must be text, but nothing is given"]),
    "date for text": (BUNDLE % "grain_parameter: 2025-01-01", ["grain_parameter", "YAML reads a date", "in quotes"]),
    "word that is no mode of counting": ("extract: {verify_counts: on}", ["extract.verify_counts", "must be one of off, report, repair"]),
    "unknown word": ("extract: {run_type: bulkk}", ["extract.run_type", "must be one of bulk, default, dynamic", "did you mean bulk?"]),
    "data standard as a number": ("extract: {data_standard: 5.2}", ["extract.data_standard", "3.3, 4.0, 5.0, 5.1, 5.2, 6.0", "in quotes"]),
    "unknown data standard": ("extract: {data_standard: '7.0'}", ["extract.data_standard", "must be one of 3.3"]),
    # lake and warehouse
    "lake of no kind": ("lake: {root: x}", ["lake (line 1)", "add kind: local or kind: s3"]),
    "lake of another kind": ("lake: {kind: s4}", ["lake (line 1)", "kind must be one of local, s3"]),
    "warehouse of another kind": ("warehouse: {kind: duck}", ["warehouse (line 1)", "duckdb, snowflake", "did you mean duckdb?"]),
    "lake as text": ("lake: data/lake", ["lake (line 1)", "must be a block of keys and values"]),
    "root as URL": ("lake: {kind: local, root: 's3://bucket/x'}", ["lake.root", "is a URL", "a path on this machine"]),
    "root as number": ("lake: {kind: local, root: 7}", ["lake.root", "must be a path"]),
    "bucket as URL": ("lake: {kind: s3, bucket: 's3://edfi'}", ["lake.bucket", "without s3://"]),
    "prefix leads out": ("lake: {kind: s3, bucket: edfi, prefix: a/../b}", ["lake.prefix", "'..'"]),
    "prefix with a date": ("lake: {kind: s3, bucket: edfi, prefix: from_20250101}", ["lake.prefix", "eight digits in a row"]),
    "one key of two": ("lake: {kind: s3, bucket: edfi, access_key_id: {env: A}}", ["lake (line 1)", "secret_access_key go together", "machine's role"]),
    "unknown encryption": ("lake: {kind: s3, bucket: edfi, encryption: aes256}", ["lake.encryption", "must be one of AES256, aws:kms", "did you mean AES256?"]),
    "key of no encryption": ("lake: {kind: s3, bucket: edfi, kms_key_id: k}", ["lake (line 1)", "without encryption: aws:kms", "take it out"]),
    "key of another encryption": ("lake: {kind: s3, bucket: edfi, encryption: AES256, kms_key_id: k}", ["without encryption: aws:kms"]),
    "database in memory": ("warehouse: {kind: duckdb, path: ':memory:'}", ["warehouse.path", "lost after each transaction", "path of a file"]),
    "schema with a blank": ("warehouse: {kind: duckdb, path: x, schema: 'a b'}", ["warehouse.schema", "letters, digits and _"]),
    "no way to sign in": (SNOWFLAKE % "role: r", ["warehouse (line 1)", "exactly one of private_key, private_key_path, password, oauth_token", "none is given"]),
    "two ways to sign in": (SNOWFLAKE % "password: {env: A}, oauth_token: {env: B}", ["password and oauth_token are given"]),
    "passphrase of no key": (SNOWFLAKE % "password: {env: A}, private_key_passphrase: {env: B}", ["take it out"]),
    "account as address": (SNOWFLAKE.replace("a-b", "a.snowflakecomputing.com") % "password: {env: A}", ["warehouse.account", "myorg-myaccount"]),
    "stage that injects": (SNOWFLAKE % "password: {env: A}, stage: 'a; drop'", ["warehouse.stage", "database.schema.stage"]),
    "role that injects": (SNOWFLAKE % "password: {env: A}, role: 'a\"b'", ["warehouse.role", "use letters"]),
    "port too high": (SNOWFLAKE % "password: {env: A}, port: 70000", ["warehouse.port", "at most 65535"]),
    "session parameter as list": (SNOWFLAKE % "password: {env: A}, session_parameters: {X: [1]}", ["warehouse.session_parameters.X", "must be text, a number"]),
    "two tables of one name": ("tables: {deletes: _X, key_changes: _x}", ["tables.key_changes", "also the table of deletes", "its own"]),
    "table with a dash": ("tables: {deletes: a-b}", ["tables.deletes", "'a-b'", "letters, digits and _"]),
    "table with a dollar": ("tables: {deletes: a$b}", ["tables.deletes", "asset keys do not allow"]),
    "prefix of other assets": ("tables: {asset_prefix: earthbeam}", ["tables.asset_prefix", "taken by other assets"]),
    "prefix of a namespace": ("tables: {asset_prefix: tpdm}\nextract: {resources: {tpdm/candidates: {}}}", ["tables.asset_prefix (line 1)", "namespace of tpdm/candidates"]),
    # secrets
    "secret as text": (TENANTS.replace("{env: GRAND_BEND_KEY}", "hunter2"), [f"{YEAR}.client_id (line 8)", "write {env: NAME}", "{file: PATH}"]),
    "secret as number": (TENANTS.replace("{env: GRAND_BEND_KEY}", "1234567"), [f"{YEAR}.client_id", "write {env: NAME}"]),
    "secret of two sources": (TENANTS.replace("GRAND_BEND_KEY", "A, file: b"), [f"{YEAR}.client_id", "nothing beside it"]),
    "secret of no source": (TENANTS.replace("{env: GRAND_BEND_KEY}", "{}"), [f"{YEAR}.client_id", "names no secret", "{env: NAME}"]),
    "secret where its name belongs": (TENANTS.replace("GRAND_BEND_KEY", "p@ss-w0rd"), [f"{YEAR}.client_id.env", "the name stands here, not the secret"]),
    "misspelt source": (TENANTS.replace("env: GRAND_BEND_KEY", "envvar: X"), [f"{YEAR}.client_id", "{env: NAME}"]),
    # tenants and years
    "no tenants": ("extract: {}\n#tenants:", ["tenants: is missing; add it"]),
    "no tenant": ("tenants: {}", ["tenants (line 1)", "declares no tenant", "years"]),
    "no year": ("tenants: {a: {years: {}}}", ["tenants.a.years (line 1)", "no school year", "2025"]),
    "tenant read as truth": (tenant("NO"), ["tenants.NO (line 3)", "booleans", 'in quotes ("NO":)']),
    "tenant read as number": (tenant("123"), ["tenants.123 (line 3)", "must be text", 'in quotes ("123":)']),
    "tenant read as date": (tenant("2025-01-01"), ["tenants.2025-01-01 (line 3)", "in quotes"]),
    "tenant read as nothing": (tenant("~"), ["tenants.~ (line 3)", "in quotes"]),
    "tenant with |": (tenant("a|b"), ["tenants.a|b", "'|'", "partition keys", "use letters, digits"]),
    "tenant with /": (tenant("a/b"), ["tenants.a/b", "'/'", "breaks paths"]),
    "tenant with a comma": (tenant('"a,b"'), ["','", "partition keys", "use letters, digits"]),
    "tenant with a bracket": (tenant('"a [b]"'), ["'[' ']'", "partition keys"]),
    "tenant ends with a space": (tenant('"a "'), ["begins or ends with a space"]),
    "tenant with what cannot be seen": (tenant('"a\\u200bb"'), ["U+200B", "cannot be seen", "take it out"]),
    "tenant with a hard space": (tenant('"a\\u00a0b"'), ["U+00A0", "cannot be seen"]),
    "tenant with a line end": (tenant('"a\\nb"'), ["U+000A", "cannot be seen"]),
    "tenant with a long folder": (tenant('"' + "漢" * 30 + '"'), ["30 characters long", "fewer if they are not ASCII"]),
    "tenant leads out": (tenant("a..b"), ["'..'", "leads out of the lake", "single dots"]),
    "tenant begins with a dot": (tenant(".a"), ["begins with '.'"]),
    "tenant begins with a dash": (tenant("-a"), ["begins with '-'"]),
    "tenant too long": (tenant("a" * 64), ["64 characters long", "at most 63"]),
    "tenant without a name": (tenant('""'), ["tenant code is empty"]),
    "tenants differ in case": (TENANTS + "  Grand_Bend: {years: {2025: {base_url: 'http://a', client_id: {env: A}, client_secret: {env: B}}}}", ["tenants.Grand_Bend (line 10)", "only in case", "rename one"]),
    "year in quotes": (school_year("'2025'"), [f"{YEAR} (line 6)", "without quotes"]),
    "year as decimal": (school_year("2025.5"), ["tenants.grand_bend.years.2025.5", "whole number"]),
    "year read as truth": (school_year("yes"), ["tenants.grand_bend.years.yes", "whole number"]),
    "two school years in one": (school_year("20242025"), ["20242025 is not a school year from 1900 to 2100", "2024-25 is written 2025"]),
    "year long gone": (school_year("1899"), ["1899 is not a school year"]),
    "organization as text": (TENANTS.replace("255901", "'255901'"), ["tenants.grand_bend.education_organization_id", "whole number, without quotes"]),
    "URL is missing": (without("base_url"), [f"{YEAR}.base_url (line 6): is missing; add it"]),
    "secret is missing": (without("client_secret"), [f"{YEAR}.client_secret (line 6): is missing; add it"]),
    "URL without scheme": (TENANTS.replace("https://", ""), [f"{YEAR}.base_url (line 7)", "https://ods.example.org/v7.3/api"]),
    "URL with password": (TENANTS.replace("https://", "https://admin:hunter2@"), [f"{YEAR}.base_url", "user or password", "{env: NAME}"]),
    "URL of the data": (TENANTS.replace("/api", "/api/data/v3/ed-fi"), [f"{YEAR}.base_url", "end it before '/data/v3'"]),
    "URL with a query": (TENANTS.replace("/api", "/api?x=1"), [f"{YEAR}.base_url", "leave that out"]),
    "URL with a bad port": (TENANTS.replace("example.org", "example.org:99999"), [f"{YEAR}.base_url", "port"]),
    "sandbox without a year": (TENANTS.replace("https://ods.example.org/v7.3/api", "sandbox://lakeview"), ["sandbox://<tenant>/<year>"]),
    "version as decimal": (of_year("api_version: 7.10"), [f"{YEAR}.api_version (line 10)", "reads 7.10 as 7.1", "in quotes"]),
    "version as words": (of_year("api_version: seven"), ["is not a version"]),
    "unknown mode": (of_year("api_mode: Shared"), [f"{YEAR}.api_mode", "shared_instance", "did you mean"]),
    "instance in a path": (of_year("instance_code: a/b"), [f"{YEAR}.instance_code", "use letters, digits"]),
    "key that is no text": ("extract: {1: x}", ["extract.1 (line 1)", "is not a key here; the keys are"]),
    "key without a name": ("'': x", ["'' (line 1): is not a key here"]),
    "half a sender": (of_year("send: {client_id: {env: A}}"), [f"{YEAR}.send.client_secret (line 10): is missing"]),
    "cron of four fields": (of_year("schedule: '0 2 * *'"), [f"{YEAR}.schedule (line 10)", "five fields", "this has 4", '"0 2 * * *"']),
    "cron of an impossible minute": (of_year("schedule: '61 2 * * *'"), ["'61' is not a minute (0 to 59)", '"0 2 * * *"']),
    "cron of an impossible day": (of_year("schedule_full_refresh: '0 2 31 feb *'"), ["schedule_full_refresh", "none of the months has a day 31"]),
    "cron as number": (of_year("schedule: 5"), [f"{YEAR}.schedule", "must be text", "in quotes"]),
    "unknown time zone": ("timezone: Chicago", ["timezone", "'Chicago' is not a time zone", "America/Chicago"]),
    "time zone leads out": ("timezone: ../etc/passwd", ["is not a time zone"]),
    "owner without a team": ("owners: [data]", ["owners.0 (line 1)", "'data'", "team:data", "e-mail"]),
    "slack without a channel": ("slack: {token: {env: A}}", ["slack (line 1)", "token and channel go together"]),
    "slack of two ways": ("slack: {token: {env: A}, channel: x, webhook_url: {env: B}}", ["one of the two"]),
    "slack of an unknown event": ("slack: {webhook_url: {env: A}, events: [faillure]}", ["slack.events.0", "failure, success, late", "did you mean failure?"]),
    # endpoints
    "endpoints as list": (resources("[students]"), ["extract.resources (line 1)", "all, none, or a mapping", "students"]),
    "endpoints as unknown word": (resources("al"), ["all, none, or a mapping"]),
    "options as truth": (resources("{students: true}"), ["extract.resources.students", "must be a block"]),
    "endpoint as number": (resources("{1: {}}"), ["extract.resources.1", "must be text", "in quotes"]),
    "endpoint in two casings": (resources("{studentSchoolAssociations: {}, student_school_associations: {}}"), ["extract.resources.student_school_associations", "same endpoint as 'studentSchoolAssociations'", "keep one"]),
    "endpoint with and without namespace": (resources("{ed-fi/students: {}, students: {}}"), ["extract.resources.students (line 1)", "same endpoint as 'ed-fi/students'"]),
    "endpoint with namespace as option": (resources("{tpdm/candidates: {}, candidates: {namespace: TPDM}}"), ["extract.resources.candidates", "same endpoint as"]),
    "two namespaces": (resources("{tpdm/candidates: {namespace: edfi}}"), ["extract.resources.tpdm/candidates", "keep one"]),
    "endpoint of too many parts": (resources("{data/ed-fi/students: {}}"), ["extract.resources.data/ed-fi/students", "is not an endpoint's name", "tpdm/candidates"]),
    "endpoint with a query": (resources("{'students?a=1': {}}"), ["is not an endpoint's name"]),
    "deletes as endpoint": (resources("{students/deletes: {}}"), ["extract.resources.students/deletes", "fetch_deletes"]),
    "descriptor among resources": (resources("{gradeLevelDescriptors: {}}"), ["extract.resources.gradeLevelDescriptors", "belongs to descriptors"]),
    "resource among descriptors": ("extract: {descriptors: {students: {}}}", ["extract.descriptors.students", "belongs to resources"]),
    "all disabled": (resources("{'*': {enabled: false}}"), ["extract.resources.*", "neither enabled nor namespace"]),
    "paging as parameter": (resources("{students: {query_parameters: {totalCount: 'x'}}}"), ["extract.resources.students.query_parameters.totalCount", "set by the pull itself"]),
    "truth as parameter": (resources("{students: {query_parameters: {a: yes}}}"), ["query_parameters.a", "booleans", "in quotes"]),
    "step of nothing": (resources("{students: {change_version_step_size: 0}}"), ["at least 1"]),
    # what a year may not do
    "run type of a year": (of_year("extract: {run_type: bulk}"), [f"{YEAR}.extract.run_type (line 10)", "same for all tenants and years", "top-level extract"]),
    "temporary folder of a year": (of_year("extract: {tmp_dir: /x}"), [f"{YEAR}.extract.tmp_dir", "top-level extract"]),
    "set of a year": (of_year("extract: {resources: all}"), [f"{YEAR}.extract.resources", "may only give options"]),
    "endpoint switched by a year": (of_year("extract: {resources: {students: {enabled: false}}}"), [f"{YEAR}.extract.resources.students.enabled", "cannot change which endpoints"]),
    "endpoint added by a year": ("extract: {resources: {schools: {}}}\n" + of_year("extract: {resources: {students: {}}}"), [f"{YEAR}.extract.resources.students", "is not pulled by the platform", "extract.resources"]),
    # earthbeam
    "bundle without a path": ("earthbeam: {bundles: {psat: {}}}", ["earthbeam.bundles.psat.path", "is missing"]),
    "bundle of a bad name": ("earthbeam: {bundles: {a__b: {path: .}}}", ["earthbeam.bundles.a__b", "is not a bundle's name"]),
    "bundles of one snake name": ("earthbeam: {bundles: {psatSat: {path: .}, psat_sat: {path: .}}}", ["earthbeam.bundles.psat_sat", "same name as 'psatSat'", "rename one"]),
    "bundle of an unknown tenant": (BUNDLE % "applies_to: {lakeview: [2025]}", ["earthbeam.bundles.psat.applies_to.lakeview", "lakeview/2025", "does not declare"]),
    "bundle of an unknown year": (BUNDLE % "applies_to: {grand_bend: [2025, 2026]}", ["applies_to.grand_bend", "grand_bend/2026"]),
    "unknown placeholder": (BUNDLE % "parameters: {A: '{yaer}'}", ["earthbeam.bundles.psat.parameters.A", "{yaer}", "{year}"]),
    "stray brace": (BUNDLE % "parameters: {A: '{year'}", ["parameters.A", "brace without its partner"]),
    "stray brace in a path": (BUNDLE % "inputs: {A: 'in/{year'}", ["inputs.A", "brace without its partner"]),
    "file in a folder": (BUNDLE % "inputs: {A: {folder: 'in/{file}'}}", ["inputs.A", "{file}"]),
    "folder without a folder": (BUNDLE % "inputs: {A: {pattern: '*'}}", ["inputs.A.folder", "is missing"]),
    "unknown key of a folder": (BUNDLE % "inputs: {A: {folder: x, patern: '*'}}", ["inputs.A.patern", "did you mean pattern?"]),
    "pattern with a folder": (BUNDLE % "inputs: {A: {folder: x, pattern: 'a/*'}}", ["inputs.A.pattern", "holds a /"]),
    "parameter of a bad name": (BUNDLE % "parameters: {A-B: x}", ["parameters.A-B", "letters, digits and _"]),
    "grain with a bar": (BUNDLE % "grains: [a|b]", ["grains.0", "|"]),
    "grain that leads elsewhere": (BUNDLE % "grains: [..]", ["grains.0", "'..'"]),
    "grain twice": (BUNDLE % "grains: [a, a]", ["grains", "name each once"]),
    "grains that are one in paths": (BUNDLE % "grains: [PSAT 10, PSAT/10]", ["grains", "one in paths"]),
    "grain that separates": (BUNDLE % "grains: [a__b]", ["grains.0", "__"]),
    "hook of no function": (BUNDLE % "hooks: {preprocess: agency.files}", ["hooks.preprocess", "package.module:function"]),
    "hook of no words": (BUNDLE % "hooks: {postprocess: []}", ["hooks.postprocess", "list of words"]),
    "share above one": (BUNDLE % "lightbeam: {max_failed_share: 5}", ["lightbeam.max_failed_share", "at most 1"]),
    "unknown command": (BUNDLE % "lightbeam: {command: sned}", ["lightbeam.command", "validate+send, delete", "did you mean send?"]),
    "status that is none": (BUNDLE % "lightbeam: {resend_status_codes: [40]}", ["resend_status_codes.0", "at least 100"]),
    "endpoints that are none": (BUNDLE % "sideload: {endpoints: students}", ["sideload.endpoints", "all, or a list"]),
    "roster of two places": (BUNDLE % "student_ids: {roster: a.csv, roster_warehouse: {kind: duckdb, path: x}}", ["student_ids", "take one of them out"]),
    "unknown key of a roster": (BUNDLE % "student_ids: {roster_warehouse: {kind: duckdb, pth: x}}", ["student_ids.roster_warehouse.pth", "did you mean path?"]),
    "runway with a plain secret": ("earthbeam: {runway: {client_secret: hunter2}}", ["earthbeam.runway.client_secret", "{env: NAME}"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "fragments"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_answered_with_file_place_and_remedy(
    tmp_path: Path, text: str, fragments: list[str]
) -> None:
    path = write_config(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_platform(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert not [fragment for fragment in fragments if fragment not in message], message
    assert "pydantic" not in message
    assert "hunter2" not in message
    assert "p@ss-w0rd" not in message
    assert "is not right here" not in message
