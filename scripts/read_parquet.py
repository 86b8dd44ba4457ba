"""Compares profile_export.parquet of a run with its profile_export.jsonl and its summary: READER DIR."""

import json
import math
import sys
from pathlib import Path

reader, run = sys.argv[1], Path(sys.argv[2])
path = str(run / "profile_export.parquet")
lines = [json.loads(line) for line in (run / "profile_export.jsonl").open()]
summary = json.loads((run / "profile_export_aiperf.json").read_text())
tags = ["request_latency", "time_to_first_token", "inter_token_latency", "output_sequence_length"]


def same(a, b):
    return math.isclose(a, b, rel_tol=1e-9)


def check(rows, mean, units):
    """`rows`: number of rows; `mean`: tag to mean over the valid profiling rows; `units`: tag to unit."""
    assert rows == len(lines), (rows, len(lines))
    for tag in tags:
        assert same(mean[tag], summary[tag]["avg"]), (tag, mean[tag], summary[tag]["avg"])
        assert units[tag] == summary[tag]["unit"], (tag, units[tag])


if reader == "pandas":
    import pandas
    import pyarrow.parquet

    table = pandas.read_parquet(path)
    valid = table[(table.benchmark_phase == "profiling") & table.error_type.isna()]
    schema = pyarrow.parquet.read_schema(path)
    units = {tag: schema.field(tag).metadata[b"unit"].decode() for tag in tags}
    check(len(table), {tag: valid[tag].mean() for tag in tags}, units)
    for row, line in zip(table.itertuples(), lines):
        assert row.x_request_id == line["metadata"]["x_request_id"]
        assert same(row.request_latency, line["metrics"]["request_latency"]["value"])
        assert len(row.inter_chunk_latency) == len(line["metrics"]["inter_chunk_latency"]["value"])
else:
    import duckdb

    ((rows,),) = duckdb.sql(f"select count(*) from '{path}'").fetchall()
    columns = ", ".join(f"avg({tag})" for tag in tags)
    where = "benchmark_phase = 'profiling' and error_type is null"
    (means,) = duckdb.sql(f"select {columns} from '{path}' where {where}").fetchall()
    ((units,),) = duckdb.sql(
        f"select decode(value) from parquet_kv_metadata('{path}') where decode(key) = 'units'"
    ).fetchall()
    check(rows, dict(zip(tags, means)), json.loads(units))

print(f"{reader}: {len(lines)} rows, as in the other files")
