"""An index of a dataset, built and searched by a describer that is no network: without a PCA, torch is never loaded."""

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.street import build_street, write_street

ROOT = Path(__file__).parents[3]
CODE = """
    import sys
    from pathlib import Path

    import numpy as np

    import indexer
    import seqdata
    from indexer.builder.pipeline.build import build_index
    from indexer.builder.pipeline.request import IndexRequest
    from indexer.builder.pipeline.shares import merge_shares, write_share
    from indexer.localizer.search import search_dataset, search_descriptors


    class MeanColours:
        name, weights, model, distance, normalised_after_pca = "colours", "0", {"name": "colours"}, "l2", True
        arithmetic = {}

        def descriptor_size(self, length):
            return 12

        def blocks(self, dataset, windows, progress=None):
            frames = dataset.read(windows, list(range(len(windows)))).astype(np.float32)
            grid = frames.reshape(*frames.shape[:3], 2, frames.shape[3] // 2, 2, frames.shape[4] // 2)
            yield grid.mean((1, 4, 6)).reshape(len(windows), 12)

        def vectors(self, dataset, windows, progress=None, frame_size=None):
            return np.concatenate(list(self.blocks(dataset, windows)))

        def as_worker(self, number, threads):
            return self


    folder = Path(sys.argv[1])
    street, model = seqdata.open(folder / "dataset"), MeanColours()
    request = IndexRequest(folder / "index", street.load_protocol("halves"))
    index = indexer.open(build_index(street, model, request))
    assert build_index(street, model, request) == index.path
    answers = list(search_dataset(index, street, "test", model, 2))
    windows = street.sequences(request.protocol, "test", "query")
    np.save(folder / "queries.npy", model.vectors(street, windows))
    by_file = list(search_descriptors(index, folder / "queries.npy", 2))
    rows = [[[place["row"] for place in answer.places] for answer in each] for each in (answers, by_file)]
    assert rows[0] == rows[1]
    shares = IndexRequest(folder / "shares", request.protocol)
    assert sum(write_share(street, model, shares, number, 2) for number in (1, 2)) == len(index)
    assert merge_shares(street, shares.out, index.id).name == index.id
    assert not {"torch", "timm", "train"} & set(sys.modules)
    print(len(answers))
"""


def test_an_index_is_built_and_searched_by_any_describer(tmp_path: Path) -> None:
    street = build_street(write_street(tmp_path / "raw"), tmp_path / "dataset")
    code = [sys.executable, "-c", textwrap.dedent(CODE), str(tmp_path)]
    ended = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == street.sequences(street.load_protocol("halves"), "test", "query").height
