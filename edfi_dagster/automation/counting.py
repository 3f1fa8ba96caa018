"""``run_type: dynamic``: what of a tenant and year has changed, counted before a run is launched for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.extract import changed_endpoints
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.catalogue import endpoints_of
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.resources import open_job
from edfi_dagster.warehouse.contract import WarehouseError

SECONDS = 25.0
"""How long a tick may count. Dagster gives it 60 s, of which the change sensor's asking may take half."""

CountChanges = Callable[[TenantYear, Collection[dg.AssetKey]], list[dg.AssetKey]]
"""Those of some assets that a delta of the pair would find anything of."""

_PAIRS_AT_ONCE = 8


class ChangeCounts:
    """Where counting a pair fails or takes too long the answer is everything: the run then says why."""

    def __init__(self, platform: Platform, keys: AssetKeys) -> None:
        self._platform = platform
        self._keys = keys

    def changed(self, pair: TenantYear, wanted: Collection[dg.AssetKey]) -> list[dg.AssetKey]:
        """Is a ``CountChanges``."""
        return self._of_pairs([pair], wanted)[pair]

    def narrowed(
        self, requests: Mapping[TenantYear, dg.RunRequest], wanted: Collection[dg.AssetKey]
    ) -> dict[TenantYear, dg.RunRequest]:
        """The runs of the pairs that count any change, each for what changed of ``wanted``."""
        return {
            pair: requests[pair].with_replaced_attrs(asset_selection=changed)
            for pair, changed in self._of_pairs(list(requests), wanted).items()
            if changed
        }

    def _of_pairs(
        self, pairs: Sequence[TenantYear], wanted: Collection[dg.AssetKey]
    ) -> dict[TenantYear, list[dg.AssetKey]]:
        threads = ThreadPoolExecutor(_PAIRS_AT_ONCE, "count pairs")
        counting = {pair: threads.submit(self._of_pair, pair, wanted) for pair in pairs}
        wait(counting.values(), timeout=SECONDS)
        threads.shutdown(wait=False, cancel_futures=True)
        return {pair: self._answer(asked, wanted) for pair, asked in counting.items()}

    def _answer(self, asked: Future[list[dg.AssetKey]], wanted: Collection[dg.AssetKey]) -> list[dg.AssetKey]:
        if asked.cancelled() or not asked.done():
            return sorted(wanted)
        try:
            return asked.result()
        except (EdFiError, ConfigError, LakeError, WarehouseError):
            return sorted(wanted)

    def _of_pair(self, pair: TenantYear, wanted: Collection[dg.AssetKey]) -> list[dg.AssetKey]:
        every = endpoints_of(self._platform, pair)
        asked = [e for e in every if any(key in wanted for key in self._keys.family(e))]
        log = dg.get_dagster_logger()
        with open_job(self._platform, pair, every, tell=log.info, warn=log.warning, run_id="count") as job:
            changed = changed_endpoints(job, asked)
        return sorted({key for e in changed for key in self._keys.family(e) if key in wanted})
