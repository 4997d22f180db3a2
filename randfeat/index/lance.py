"""Index in a table of LanceDB: exported from ours, and searched by the same commands.

The neighbours are those of our index: vectors are written as they are indexed, of length 1 where the metric is cosine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..features import lance
from ..features.lance import BLOCK, Block
from .query import Filter, Match, expression
from .vectors import checked

if TYPE_CHECKING:
    from ..data.errors import OnError
    from ..features.encoder import Encoder
    from .index import Index

MANY = 100_000  # rows from which LanceDB is given an index of its own; fewer are compared one by one
# of its own index: lists that are looked through, and candidates for each result that are compared by their vectors,
# since those of its codes alone are seldom the nearest
PROBES, CANDIDATES = 50, 30
COLUMNS = ["id", "path", "label", "_distance"]


def export(index: Index, place: str) -> LanceIndex:
    """Write all rows of an index to a new table at a place, `lancedb:PATH`, and open it.

    From MANY rows on LanceDB makes an index of its own type, with its own defaults. Raises a ValueError for a whitened
    index, whose queries LanceDB could not whiten, and what `lance.write` raises.
    """
    if index.whitening is not None:
        raise ValueError(f"{index!r} is whitened, which LanceDB cannot do to queries: build it without whitening")
    table = lance.write(place, _blocks(index), index.dim, index.metric, index.encoder_record)
    if len(index) >= MANY:
        from lancedb.index import IvfPq

        table.create_index("vector", config=IvfPq(distance_type=index.metric))
    return LanceIndex(place)


def _blocks(index: Index) -> Iterator[Block]:
    """Yield the rows of an index, by id."""
    ids = index.ids()
    for start in range(0, len(ids), BLOCK):
        some = ids[start : start + BLOCK]
        rows = index.rows(some)
        yield Block(np.asarray(some, np.int64), index.vectors(some), [m.path for m in rows], [m.label for m in rows])


class LanceIndex:
    """Rows in a table of LanceDB, searched as an `Index` is. table: LanceDB's own, for all else that it can do."""

    whitening = None
    directory: str

    def __init__(self, place: str) -> None:
        """Open a table; raises what `lance.open_table` raises."""
        self.directory = place
        self.table, record = lance.open_table(place)
        self.metric: str = record["metric"]
        self.encoder_record: dict[str, Any] | None = record["encoder"]
        self.width: int = self.table.schema.field("vector").type.list_size

    def __len__(self) -> int:
        return self.table.count_rows()

    def __repr__(self) -> str:
        return f"LanceIndex({self.directory!r}: {len(self)} rows of {self.width}, {self.metric})"

    def labels(self) -> dict[str, int]:
        """Return the number of rows of each label, sorted by label; rows without one are not counted."""
        column = self.table.search().select(["label"]).limit(len(self)).to_arrow()["label"]
        counts = pc.value_counts(pc.drop_null(column)).to_pylist()
        return dict(sorted((one["values"], one["counts"]) for one in counts))

    def search(self, queries: np.ndarray, k: int = 10, where: Filter | None = None) -> list[list[Match]]:
        """Return for each of the queries (m, F) its k nearest rows, or all that there are, best first."""
        queries = checked(queries)
        if queries.shape[1] != self.width:
            raise ValueError(f"the index holds features of {self.width} numbers, the query has {queries.shape[1]}")
        return [self._nearest(query, k, where) for query in queries]

    def _nearest(self, query: np.ndarray, k: int, where: Filter | None) -> list[Match]:
        asked = self.table.search(query, vector_column_name="vector").distance_type(self.metric)
        asked = asked.nprobes(PROBES).refine_factor(CANDIDATES)
        if where:
            asked = asked.where(sql(where), prefilter=True)
        found: pa.Table = asked.select(COLUMNS).limit(k).to_arrow()
        distances = found["_distance"].to_numpy()
        # of cosine and dot product LanceDB returns 1 less, of l2 the square
        scores = np.sqrt(distances.clip(0)) if self.metric == "l2" else 1 - distances
        columns = [found[name].to_pylist() for name in ("id", "path", "label")]
        return [*map(Match, *columns, scores.tolist())]

    def encoder(self, device: str = "cpu", model: str | None = None) -> Encoder:
        """Return the encoder that read the images, as `Index.encoder` does."""
        from .reader import open_encoder_of

        if self.encoder_record is None:
            raise ValueError(f"{self!r} holds numbers that no model read: search with features")
        return open_encoder_of(self.encoder_record, device, model)

    def read(self, images: Any, encoder: Encoder, batch_size: int = 64, on_error: OnError = "raise") -> np.ndarray:
        """Return queries (m, F) of images, by an encoder that `encoder` opened."""
        return encoder.features(images, batch_size, on_error)[0]

    def read_texts(self, texts: Sequence[str], encoder: Encoder) -> np.ndarray:
        """Return queries (n, F) of texts, by a text-image model that `encoder` opened."""
        return encoder.encode_texts(texts)


def sql(where: Filter) -> str:
    """Return a filter as an expression of LanceDB's SQL."""
    parts = []
    if where.labels:
        parts.append(f"label IN ({', '.join(map(_quoted, where.labels))})")
    if where.paths:
        parts.append(f"regexp_like(path, {_quoted('|'.join(map(expression, where.paths)))})")
    return " AND ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
