"""What downstream Python assets get from lake and warehouse, and where their own tables go. Never a pickle.

A downstream asset says by its annotation what it wants of an endpoint or a raw table: ``Manifest`` (the latest pull),
``pandas.DataFrame`` (one row per current record, one column per property) or ``Rows`` (current records one by one; also
without an annotation). It gets its own partition's rows only. A DataFrame it returns becomes a table with ``tenant_code`` and
``api_year`` in front, whose partition is replaced in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, pair_of
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.extract import EndpointResult, load_stored
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, read_manifest, stamps
from edfi_dagster.lake.proof import DamagedFile, check
from edfi_dagster.lake.store import LakeStore, open_lake
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.ods.pages import RecordKind
from edfi_dagster.warehouse.contract import Warehouse
from edfi_dagster.warehouse.current import current_rows
from edfi_dagster.warehouse.opening import open_warehouse

if TYPE_CHECKING:
    import pandas as pd


class Rows(Iterator[dict[str, Any]]):
    """Current records, one by one, each as the API sent it; never all of them in memory."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)

    def __next__(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(next(self._texts))
        return record


class Stores:
    """Lake and warehouse of a platform as IO managers share them: a DuckDB file is open once in a process, or waits.

    Opened at their first use: the code location only loads this.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @cached_property
    def lake(self) -> LakeStore:
        return open_lake(self._platform.lake, self._platform.extract.tmp_dir)

    @cached_property
    def warehouse(self) -> Warehouse:
        tell = dg.get_dagster_logger().info
        return open_warehouse(self._platform, self.lake, tell, tag={"run": "downstream assets"})

    def texts(self, pair: TenantYear, endpoint: Endpoint) -> Iterator[str]:
        """Current records as JSON texts; the warehouse is let go after the last."""
        with self.warehouse.connected() as connection:
            for _, text in current_rows(connection, pair, endpoint):
                yield text


class LakeIOManager(dg.IOManager):
    """Endpoint assets: their latest manifest, or the current records behind them."""

    def __init__(self, platform: Platform, stores: Stores) -> None:
        self._platform = platform
        self._stores = stores
        self._keys = AssetKeys(platform)

    def handle_output(self, context: dg.OutputContext, obj: Manifest) -> None:
        """A pull is in the lake once its manifest is: what is left is to say where."""
        context.add_output_metadata({"edfi/rows": obj.rows, "edfi/files": [file.path for file in obj.files]})

    def load_input(self, context: dg.InputContext) -> Manifest | pd.DataFrame | Rows:
        pair = pair_of(context.partition_key)
        endpoint, kind = self._endpoint(pair, context.asset_key)
        if context.dagster_type.typing_type is Manifest:
            return self._latest(pair, endpoint, kind)
        return _records(self._stores.texts(pair, endpoint), context)

    def _endpoint(self, pair: TenantYear, key: dg.AssetKey) -> tuple[Endpoint, RecordKind]:
        for endpoint in endpoints_of(self._platform, pair):
            kinds: tuple[RecordKind, ...] = ("records", "deletes", "key_changes")
            for kind in kinds:
                if self._keys.endpoint(endpoint, kind) == key:
                    return endpoint, kind
        raise dg.DagsterInvariantViolationError(f"{key.to_user_string()} is no endpoint of {pair}")

    def _latest(self, pair: TenantYear, endpoint: Endpoint, kind: RecordKind) -> Manifest:
        for stamp in reversed(stamps(self._stores.lake, pair)):
            folder = paths.pull_folder(pair, stamp, endpoint, kind)
            path = paths.manifest_path(folder, endpoint.snake)
            if self._stores.lake.exists(path):
                manifest = read_manifest(self._stores.lake, path)
                try:
                    check(self._stores.lake, manifest.files)  # what the asset will read
                except DamagedFile as error:
                    raise error.of(f"{pair} {endpoint.path}") from None
                return manifest
        raise dg.DagsterInvariantViolationError(
            f"the lake holds no {kind} of {endpoint.path} for {pair}; materialize it first"
        )


class WarehouseIOManager(dg.IOManager):
    """Raw tables, and the tables that downstream Python assets make."""

    def __init__(self, platform: Platform, stores: Stores) -> None:
        self._platform = platform
        self._stores = stores
        self._keys = AssetKeys(platform)

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame | Manifest | EndpointResult) -> None:
        """Replace the partition's rows of the asset's own table by a DataFrame; load a pull, if it is not loaded yet."""
        pair = pair_of(context.partition_key)
        if isinstance(obj, EndpointResult):
            return  # loaded by the run that it is the result of
        if isinstance(obj, Manifest):
            self._load(pair, obj, context)
            return
        frame = obj.copy()
        frame.insert(0, "tenant_code", pair.tenant)
        frame.insert(1, "api_year", pair.year)
        with self._stores.warehouse.connected() as connection:
            connection.replace_partition(context.asset_key.path[-1], frame, pair)
        context.add_output_metadata({"dagster/partition_row_count": len(obj)})

    def _load(self, pair: TenantYear, manifest: Manifest, context: dg.OutputContext) -> None:
        """Load what the lake holds of the manifest's endpoint beyond what is committed. Raises dagster.Failure."""
        endpoint = next(e for e in endpoints_of(self._platform, pair) if e.path == manifest.path)
        stores = self._stores
        for result in load_stored(
            self._platform, stores.lake, stores.warehouse, pair, [endpoint], tell=context.log.info
        ):
            if result.failures:
                raise dg.Failure("; ".join(result.failures.values()), allow_retries=False)
            context.add_output_metadata({"edfi/rows_loaded": result.rows_inserted})

    def load_input(self, context: dg.InputContext) -> pd.DataFrame | Rows:
        pair = pair_of(context.partition_key)
        for endpoint in endpoints_of(self._platform, pair):
            if self._keys.table(endpoint) == context.asset_key and not endpoint.is_descriptor:
                return _records(self._stores.texts(pair, endpoint), context)
        raise dg.DagsterInvariantViolationError(
            f"{context.asset_key.to_user_string()} is no raw table of {pair}"
        )


def _records(texts: Iterator[str], context: dg.InputContext) -> pd.DataFrame | Rows:
    import pandas as pd  # takes a second, which a code location that only loads need not spend

    wanted = context.dagster_type.typing_type
    if wanted is pd.DataFrame:
        return pd.DataFrame(list(Rows(texts)))
    if wanted in {Rows, Any}:
        return Rows(texts)
    raise dg.DagsterInvariantViolationError(
        f"{context.asset_key.to_user_string()} can be loaded as Manifest, pandas.DataFrame or Rows, not as {wanted}"
    )
