"""Configurations to test with, written as an agency would write them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

TENANTS = """
tenants:
  grand_bend:
    education_organization_id: 255901
    years:
      2025:
        base_url: https://ods.example.org/v7.3/api
        client_id: {env: GRAND_BEND_KEY}
        client_secret: {env: GRAND_BEND_SECRET}
"""

EVERYTHING = """
lake: {kind: s3, bucket: edfi-lake, prefix: /edfi/lake/, region: us-east-2, endpoint_url: "http://127.0.0.1:9000/",
       access_key_id: {env: S3_KEY}, secret_access_key: {file: secrets/s3}, compression: gzip,
       encryption: "aws:kms", kms_key_id: alias/lake}
warehouse:
  kind: snowflake
  account: myorg-myaccount
  user: loader
  private_key_path: keys/snowflake.p8
  private_key_passphrase: {env: SNOWFLAKE_PASSPHRASE}
  role: loader
  warehouse: loading
  database: raw
  schema: edfi3
  stage: raw.util.airflow_stage
  host: localhost
  port: 8084
  protocol: http
  session_parameters: {QUERY_TAG: edfi, STATEMENT_TIMEOUT_IN_SECONDS: 600}
slack: {token: {env: SLACK_TOKEN}, channel: "#edfi", events: [failure, success, late]}
owners: ["team:data", data@example.org]
timezone: America/Chicago
extract:
  data_standard: "5.1"
  run_type: dynamic
  max_concurrent_requests: 12
  change_version_overlap: 0
  use_change_version: true
  get_key_changes: false
  pull_total_counts: true
  use_snapshot: false
  late_after_hours: 36.5
  tmp_dir: ~/scratch
  endpoint_defaults: {page_size: 400, num_retries: 3, change_version_step_size: 1000, fetch_deletes: true, query_parameters: {a: 1}}
  resources:
    "*": {num_retries: 4}
    studentSectionAssociations: {page_size: 250, query_parameters: {b: two}}
    tpdm/candidates:
    survey_responses: {namespace: tpdm, fetch_deletes: false}
    payrolls: {enabled: false}
  descriptors: none
tables: {asset_prefix: raw_edfi, deletes: _edfi_deletes}
tenants:
  grand_bend:
    education_organization_id: 255901
    years:
      2025: &year
        base_url: https://ods.example.org/v7.3/api/
        client_id: {env: GRAND_BEND_KEY}
        client_secret: {file: secrets/grand_bend}
        api_version: "7.3"
        api_mode: Year Specific
        instance_code: north-1
        verify_ssl: false
        multiyear: true
        send: {client_id: {env: SEND_KEY}, client_secret: {env: SEND_SECRET}}
        schedule: "0 2 * * *"
        schedule_resources: "30 2 * * mon-fri"
        schedule_descriptors: "@daily"
        schedule_full_refresh: "0 4 * * 6"
      2026:
        <<: *year
        api_version: 2
        send: null
        extract:
          data_standard: "3.3"
          max_concurrent_requests: 2
          late_after_hours: 12
          endpoint_defaults: {page_size: 100, num_retries: 9}
          resources:
            "*": {query_parameters: {c: 3}}
            StudentSectionAssociations: {page_size: 50}
  "NO":
    years:
      2025: {base_url: "sandbox://lakeview/2025", client_id: {env: K}, client_secret: {env: S}}
earthbeam:
  earthmover: {path: tools/earthmover, concurrency: 2, timeout_minutes: 60}
  lightbeam: {path: lightbeam, concurrency: 1, timeout_minutes: 120, pool_size: 8}
  bundles:
    psat_sat:
      path: bundles/PSAT_SAT
      applies_to: {grand_bend: [2025]}
      parameters: {API_YEAR: "{year}", STUDENT_ID_NAME: SECONDARY_ID, LIMIT: 5}
      inputs: {INPUT_FILE: {folder: "incoming/{tenant}/{year}/psat", pattern: "*.csv", split_by_tenant: true}, OTHER: "maps/{grain}.csv"}
      grains: [SAT, PSAT]
      grain_parameter: TEST_TYPE
      student_ids:
        roster: warehouse
        roster_warehouse: {kind: duckdb, path: roster.duckdb, schema: students}
        required_match_rate: 1
        id_types: [District, State]
        columns: [student_id]
        wrapper: bundles/student_id_wrapper
      destination: warehouse
      allow_empty_output: true
      earthmover: {selector: null, force: false, skip_hashing: true, show_graph: false, show_stacktrace: false, results_file: true}
      lightbeam: {command: validate, selector: students, wipe: true, force: true, older_than: 2025-01-31, newer_than: "2024-01-01",
                  resend_status_codes: [400], max_failed_share: 0.25}
      sideload: {endpoints: [studentAssessments], ods_version: "7.3", data_model_version: "5.2", full_refresh: true}
      hooks: {preprocess: "agency.files:unzip", postprocess: [sh, -c, "echo {file}"]}
      archive: {raw: true, transformed: false}
  runway: {base_url: "https://api.example.org/api/v1", token_url: null, audience: null, partner: north, client_id: {env: RUNWAY_ID}, client_secret: {env: RUNWAY_SECRET}}
"""


def of_year(lines: str) -> str:
    """A configuration of one tenant whose year holds `lines` besides what it needs."""
    return TENANTS.rstrip() + "\n" + indent(dedent(lines).strip(), " " * 8) + "\n"


def without(key: str) -> str:
    """The smallest configuration, without the line of `key`."""
    return "\n".join(line for line in TENANTS.splitlines() if not line.strip().startswith(f"{key}:"))


def write_config(folder: Path, text: str) -> Path:
    """Write `text`, completed with tenants where it has none, as `folder/agency.yaml`."""
    text = dedent(text)
    path = folder / "agency.yaml"
    path.write_text(text if "tenants:" in text else text + TENANTS, encoding="utf-8")
    return path
