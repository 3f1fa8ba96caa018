"""The file-drop sensor: one run for each new file in the folders of ``inputs: {VAR: {folder, pattern}}``.

Per tenant, year, bundle and grain. Where the grains share a folder, a file is of the one that its name tells
(``PSAT_fall.csv``); one that names none is told of and left alone, as its rows would be those of every grain.

Files run oldest first, so that a correction comes after what it corrects. A file whose content is that of the last run of
its place is not run again, under whatever name; content of an earlier run is, as a correction may be taken back. A file
that is still being written waits until it was the same at two ticks.

The cursor holds what was seen, and per place how many runs there were and of which content the last was. Without it, the
runs of the instance tell that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import dagster as dg

from edfi_dagster.assets.bundle_specs import BundleAssets
from edfi_dagster.assets.bundles import BundleRun, run_config
from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.dropped_files import MOST_REMEMBERED, Cursor, DroppedRuns, Last, Seen
from edfi_dagster.automation.run_history import TRIGGER_TAG, definition_tags
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.config.earthbeam import InputFolder, grain_piece
from edfi_dagster.config.errors import is_unicode, printable
from edfi_dagster.dagster_private import UnresolvedAssetJobDefinition, default_sensor_grpc_timeout
from edfi_dagster.earthbeam import BundleError
from edfi_dagster.earthbeam.filling import fill_path
from edfi_dagster.earthbeam.workspace import file_digest

BUNDLE_JOB = "run_bundles"
FILE_DROP_SENSOR = "bundle_files"
FILE_DROP = "file_drop"
BUNDLE_TAG, GRAIN_TAG, FILE_TAG = "edfi/bundle", "edfi/grain", "edfi/file"
INTERVAL_SECONDS = 60
_MOST_REQUESTS = 50
_TOLD = 10


@dataclass(frozen=True)
class Place:
    """A folder in which files for one variable of a bundle are dropped, for one tenant, year and grain."""

    assets: BundleAssets
    pair: TenantYear
    grain: str | None
    variable: str
    folder: Path
    pattern: str
    sharing: tuple[str, ...] = ()
    """The grains whose files lie in this folder, where they are more than this one."""

    @property
    def id(self) -> str:
        return "|".join([self.assets.name, self.grain or "-", *map(str, self.pair), self.variable])

    @property
    def tags(self) -> dict[str, str]:
        """What runs of its files are tagged with, beside their pair and file."""
        grain = {GRAIN_TAG: self.grain} if self.grain else {}
        return {TRIGGER_TAG: FILE_DROP, BUNDLE_TAG: self.assets.name, **grain}

    @property
    def run(self) -> tuple[str, TenantYear, str | None]:
        """What has this place, and perhaps others for its other variables."""
        return self.assets.name, self.pair, self.grain

    def takes(self, file: Path) -> bool:
        if not fnmatch(file.name, self.pattern):
            return False
        if len(self.sharing) < 2:
            return True
        named = [grain for grain in self.sharing if _names(file.stem, grain)]
        return bool(named) and self.grain == max(named, key=len)

    def request(self, file: Path, last: Last) -> dg.RunRequest:
        """The run of a file, which is ``last`` from now on. Dagster drops a key that any run had: no two runs share one."""
        config = BundleRun(grain=self.grain, files={self.variable: str(file)})
        return dg.RunRequest(
            run_key=f"{self.id}|{last.digest}|{last.number}",
            partition_key=partition_key(self.pair),
            asset_selection=[spec.key for spec in self.assets.specs()],
            run_config=run_config(self.assets, config),
            tags={**definition_tags(self.pair), **self.tags, FILE_TAG: file.name},
        )


@dataclass
class _Tick:
    """What one tick finds. ``last`` grows with each request; ``recovered`` are places whose last run the cursor did not hold."""

    before: Mapping[str, Mapping[str, Seen]]
    last: dict[str, Last]
    until: float
    clock: Callable[[], float]
    after: dict[str, dict[str, Seen]] = field(default_factory=dict)
    recovered: set[str] = field(default_factory=set)
    requests: list[dg.RunRequest] = field(default_factory=list)
    told: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[Path, tuple[int, int, str]] = field(default_factory=dict)

    def tell(self, what: str, sentence: str) -> None:
        sentence = printable(sentence)
        sentences = self.told.setdefault(what, [])
        if sentence not in sentences:
            sentences.append(sentence)

    @property
    def forgot(self) -> bool:
        """Whether the cursor could not hold all files."""
        return sum(map(len, self.before.values())) >= MOST_REMEMBERED

    @property
    def is_full(self) -> bool:
        return len(self.requests) >= _MOST_REQUESTS or self.clock() >= self.until

    def sentences(self) -> list[str]:
        found = []
        for what, sentences in self.told.items():
            found += [f"{what}: {sentence}" for sentence in sentences[:_TOLD]]
            if len(sentences) > _TOLD:
                found.append(f"{what}: {len(sentences) - _TOLD} more")
        return found or ["no new files"]


class FileDropSensor:
    """Looks into the folders at each tick. ``clock`` are seconds that only grow; ``seconds`` is the time a tick has."""

    def __init__(
        self,
        platform: Platform,
        bundles: Sequence[BundleAssets],
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._platform = platform
        self._bundles = bundles
        self._seconds = seconds
        self._clock = clock

    def tick(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Ask for a run of each new file, and say what waits, what matches nothing, and what is missing."""
        cursor = Cursor.read(context.cursor)
        tick = _Tick(cursor.seen, dict(cursor.last), self._clock() + self._seconds, self._clock)
        history = DroppedRuns(context.instance)
        if tick.forgot:
            tick.tell("full", f"more than {MOST_REMEMBERED} files lie in the folders; move away what is done")
        listings: dict[Path, list[Path] | None] = {}
        places = [place for assets in self._bundles for place in self._places(assets, tick)]
        for place in places:
            if place.folder not in listings:
                listings[place.folder] = _files(place.folder)
                if listings[place.folder] is None:
                    tick.tell("missing", f"there is no folder {place.folder}")
        for place in places:
            others = [p for p in places if p.run == place.run and p.variable != place.variable]
            lacking = [p.variable for p in others if not any(map(p.takes, listings[p.folder] or ()))]
            files = [f for f in listings[place.folder] or () if place.takes(f)]
            self._look(place, files, lacking, tick, history)
        _tell_unmatched(places, listings, tick)
        sentences = tick.sentences()
        for sentence in sentences:
            context.log.info(sentence)
        reason = None if tick.requests else dg.SkipReason("; ".join(sentences))
        return dg.SensorResult(tick.requests, skip_reason=reason, cursor=Cursor(tick.after, tick.last).text())

    def _places(self, assets: BundleAssets, tick: _Tick) -> Iterator[Place]:
        settings = assets.settings
        if assets.outline is None:
            tick.tell("not watched", f"{assets.name} cannot be read: {assets.problem}")
            return
        for variable, place in settings.inputs.items():
            if not isinstance(place, InputFolder):
                continue
            sharing = () if "{grain}" in place.folder else settings.grains
            for pair in self._platform.bundle_pairs(assets.name):
                for grain in settings.grains or (None,):
                    values = {
                        "tenant": pair.tenant,
                        "year": str(pair.year),
                        "grain": grain_piece(grain or ""),
                    }
                    try:
                        folder = self._platform.folder / fill_path(place.folder, values)
                    except BundleError as error:
                        tick.tell("not watched", f"{assets.name}: {error}")
                        continue
                    yield Place(assets, pair, grain, variable, folder, place.pattern, sharing)

    def _look(
        self, place: Place, files: Iterable[Path], lacking: Sequence[str], tick: _Tick, history: DroppedRuns
    ) -> None:
        before = tick.before.get(place.id, {})
        after = tick.after.setdefault(place.id, {})
        for file in files:
            if not is_unicode(file.name):
                # No run can be tagged with it; the daemon would fail, and start none of the others.
                tick.tell("not read", f"{file}: its name is not UTF-8; rename it")
                continue
            try:
                size, changed = _stat(file)
                seen = before.get(file.name)
                if seen is None or seen[:2] != (size, changed):
                    after[file.name] = (size, changed, "")
                    tick.tell("waiting", f"{file} is new, and run at the next tick if it stays as it is")
                elif seen[2]:
                    after[file.name] = seen
                else:
                    after[file.name] = self._new(place, file, seen, lacking, tick, history)
            except OSError as error:
                tick.tell("not read", f"{file}: {error.strerror or type(error).__name__}")

    def _new(
        self, place: Place, file: Path, seen: Seen, lacking: Sequence[str], tick: _Tick, history: DroppedRuns
    ) -> Seen:
        """A file that was the same at two ticks: its run, unless it has to wait."""
        if lacking:
            tick.tell(
                "waiting", f"{file} until there is a file for {', '.join(lacking)} of {place.assets.name}"
            )
            return seen
        if tick.is_full:
            tick.tell("waiting", f"{file} has its turn at the next tick")
            return seen
        digest = tick.digests.get(file)
        if digest is None or digest[:2] != seen[:2]:
            digest = tick.digests[file] = (*seen[:2], file_digest(file))
        if _stat(file) != seen[:2]:
            tick.tell("waiting", f"{file} is still being written")
            return (*_stat(file), "")
        if not self._was_last(place, file, digest[2], tick, history):
            last = tick.last[place.id] = tick.last[place.id].next(digest[2])
            tick.requests.append(place.request(file, last))
        return digest

    def _was_last(self, place: Place, file: Path, digest: str, tick: _Tick, history: DroppedRuns) -> bool:
        """Whether the last run of a place was of this content; or, if the cursor does not tell, that of the file's name."""
        tags = {**place.tags, **definition_tags(place.pair)}
        if place.id not in tick.last:
            tick.recovered.add(place.id)
            tick.last[place.id] = history.last(place.id, tags) or Last()
        if tick.last[place.id].is_of(digest):
            return True
        if place.id not in tick.recovered and not tick.forgot:
            return False
        before = history.last(place.id, {**tags, FILE_TAG: file.name})
        return before is not None and before.is_of(digest)


def build_bundle_job(bundles: Iterable[BundleAssets]) -> UnresolvedAssetJobDefinition:
    """The bundles of one tenant and year; a run selects the one it is of."""
    return dg.define_asset_job(
        BUNDLE_JOB,
        selection=dg.AssetSelection.assets(*(spec.key for assets in bundles for spec in assets.specs())),
        executor_def=dg.in_process_executor,
        description="Run bundles for one tenant and year: files → Earthmover → Lightbeam, or the raw tables.",
    )


def build_file_drop_sensor(
    platform: Platform,
    bundles: Sequence[BundleAssets],
    job: UnresolvedAssetJobDefinition,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> dg.SensorDefinition:
    """The sensor, off until turned on. Reading files takes at most half of what Dagster gives a tick."""
    sensor = FileDropSensor(platform, bundles, seconds=default_sensor_grpc_timeout() / 2, clock=clock)
    return dg.SensorDefinition(
        name=FILE_DROP_SENSOR,
        evaluation_fn=sensor.tick,
        job=job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Looks into the folders where bundles' files are dropped and runs each new file once, when it is "
        "complete. Files that match no pattern are told of and left alone.",
    )


def is_watched(assets: BundleAssets) -> bool:
    """Whether any of a bundle's files are dropped in a folder."""
    return any(isinstance(place, InputFolder) for place in assets.settings.inputs.values())


def _files(folder: Path) -> list[Path] | None:
    """The files of a folder, oldest first, without hidden ones; None where there is no such folder."""
    try:
        found = [file for file in folder.iterdir() if file.name[0] != "." and file.is_file()]
        return sorted(found, key=lambda file: (file.stat().st_mtime_ns, file.name))
    except OSError:
        return None


def _names(text: str, grain: str) -> bool:
    """Whether a file's name tells a grain, with whatever between its parts: ``psat_8-9_fall`` is of ``PSAT 8/9``."""
    parts = "[^a-z0-9]*".join(map(re.escape, re.findall(r"[A-Za-z0-9]+", grain)))
    return re.search(rf"(?<![a-z0-9]){parts}(?![a-z0-9])", text, re.IGNORECASE) is not None


def _stat(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _tell_unmatched(places: Sequence[Place], listings: Mapping[Path, list[Path] | None], tick: _Tick) -> None:
    for folder, files in listings.items():
        here = [place for place in places if place.folder == folder]
        for file in files or ():
            if not any(place.takes(file) for place in here):
                if matching := [place for place in here if fnmatch(file.name, place.pattern)]:
                    grains = ", ".join(matching[0].sharing)
                    tick.tell("unmatched", f"{file} names none of {grains}; put one into its name")
                    continue
                patterns = ", ".join(sorted({place.pattern for place in here}))
                tick.tell("unmatched", f"{file} matches none of {patterns}")
