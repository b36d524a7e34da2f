"""`realrag bench store` fills a collection once and compares what it proposes with exact search."""

import json

import pytest
from milvus_lite_store import lite_address

from realrag.bench import store
from realrag.commands.main import main, parser
from realrag.errors import QueryError


@pytest.mark.slow
def test_a_collection_is_filled_once_and_asked(tmp_path, capsys):
    command = [
        "bench",
        "store",
        "--to",
        lite_address(tmp_path),
        "--rows",
        "1500",
        "--dim",
        "16",
        "--queries",
        "5",
        "--json",
    ]
    results = []
    for _ in range(2):
        assert main(command) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert [result["added"] for result in results] == [1500, 0]
    assert results[0]["recall"] > 0.9 and results[0]["index"] == "IVF_SQ8"
    assert "recall@10" in store.format_report(results[1])


def test_a_benchmark_of_nothing_is_refused():
    with pytest.raises(QueryError, match="dim from 3"):
        store.run(parser().parse_args(["bench", "store", "--to", "milvus-lite:x.db", "--queries", "0"]))
