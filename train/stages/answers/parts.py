"""An index's answers in parts of the queries, from array jobs or several processes, joined to the answer of one.

RUN/predictions/.parts/<predictions>/part-00001-of-00004.parquet: each is a predictions file of its queries alone, and
appears whole. The database is not divided: every job searches all of the index, mapped.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import polars as pl

from indexer.builder.shares import share
from indexer.evaluation import predictions
from indexer.evaluation.comparison import Predicted
from indexer.place_index import PlaceIndex, open_index
from indexer.search.pools import EngineName
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.dataset import open as open_dataset
from seqdata.parallel import Engine, Progress, ShardRange, run_jobs
from train.data.describe_settings import DescribeSettings
from train.runs.record import predictions_path
from train.stages import evaluate


@dataclass(frozen=True)
class QuerySearch:
    """What every part of one answer has in common: dataset, index, its run, the protocol, and how to compute."""

    dataset: Dataset
    index: PlaceIndex
    run: Path
    protocol: Protocol
    settings: DescribeSettings

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        path = predictions_path(self.run, self.index, self.protocol)
        return path.parent / ".parts" / path.stem

    def part(self, number: int, of: int) -> Path:
        """The file of part `number` (from 1) of `of`."""
        return self.folder / f"part-{number:05d}-of-{of:05d}.parquet"

    def write_part(self, number: int, of: int, progress: Progress | None = None) -> int:
        """Search for the queries of a part and store their answers; a part that is there stays as it is.

        Args:
            number: Which part, from 1.
            of: Parts in all.
            progress: Called with (windows described, windows in all).

        Returns:
            Queries of the part.

        Raises:
            SeqdataError: As `train.stages.evaluate.answer`.
        """
        split = str(self.index.manifest.inputs["split"])
        rows = share(self.dataset.sequences(self.protocol, split, "query").height, number, of)
        path = self.part(number, of)
        # A part has its name only when it is whole, and its folder is named by index, protocol and split.
        if not path.is_file():
            ((table, info),) = evaluate.answer(
                self.dataset,
                self.index,
                self.run,
                self.protocol,
                rows=rows,
                settings=self.settings,
                progress=progress,
            )
            predictions.write(path, table, info)
        return len(rows)

    def join_parts(self) -> Predicted | None:
        """Read and join the parts of a division that is whole; None where there is none.

        Raises:
            ContractError: If a part is damaged.
        """
        # Parts of several divisions may lie side by side (1/4 … and 1/8 …): only those of one fit together.
        for first in sorted(self.folder.glob("part-00001-of-*.parquet")):
            of = int(first.stem.rpartition("-")[2])
            paths = [self.part(number, of) for number in range(1, of + 1)]
            if all(path.is_file() for path in paths):
                parts = [predictions.read(path) for path in paths]
                return pl.concat([table for table, _ in parts]).sort("query", "rank"), parts[0][1]
        return None

    def remove_parts(self) -> None:
        """Remove the parts, once the answer is stored."""
        rmtree(self.folder, ignore_errors=True)

    def search_on(self, engine: Engine, workers: int, progress: Progress | None = None) -> Predicted:
        """Search in several processes at once.

        Args:
            engine: "pool" for processes of this machine, "ray" for one actor a GPU of a cluster, or a CPU without any.
            workers: Parts, and processes at once.
            progress: Called with (queries finished, queries in all) after each part.

        Returns:
            The predictions, as of one process.

        Raises:
            OutputError: If a process dies; otherwise as `train.stages.evaluate.answer`.
        """
        # Workers share the cores: more threads than cores would only take turns.
        threads = max(1, (os.cpu_count() or 1) // workers)
        jobs = [
            QueryPartJob(
                dataset=self.dataset.address,
                version=self.dataset.manifest.version,
                index=self.index.path.resolve(),
                engine=self.index.engine,
                run_folder=self.run.resolve(),
                protocol=self.protocol,
                settings=self.settings,
                share=ShardRange(number, workers),
                threads=threads,
            )
            for number in range(1, workers + 1)
        ]
        split, finished = str(self.index.manifest.inputs["split"]), 0
        total = self.dataset.sequences(self.protocol, split, "query").height
        for rows in run_jobs(jobs, engine, workers, on_devices=True):
            finished += rows
            if progress is not None:
                progress(finished, total)
        answer = self.join_parts()
        assert answer is not None  # noqa: S101  (every job has written its part)
        return answer


@dataclass(frozen=True)
class QueryPartJob:
    """One part of an answer, in whatever process this is."""

    dataset: str
    version: int
    index: Path
    engine: EngineName
    run_folder: Path
    protocol: Protocol
    settings: DescribeSettings
    share: ShardRange
    threads: int

    def run(self) -> int:
        """Write the part; return its queries."""
        import torch  # heavy

        torch.set_num_threads(self.threads)
        dataset = open_dataset(self.dataset, version=self.version)
        index = open_index(self.index, engine=self.engine)
        search = QuerySearch(dataset, index, self.run_folder, self.protocol, self.settings)
        return search.write_part(self.share.number, self.share.jobs)
