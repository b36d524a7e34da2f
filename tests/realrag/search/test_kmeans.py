"""k-means by torch against slow twins, and the lists made of it against faiss's own and exact search."""

import logging

import numpy as np
import pytest
import torch

import realrag.search.kmeans as module
from realrag.bench.clustered_vectors import clustered_vectors, text_queries
from realrag.search import ivf
from realrag.search.index import ExactIndex, IVFIndex, open_index
from realrag.search.kmeans import nearest, spherical_kmeans, split_largest

K = 10
MARGIN = 0.02  # of recall@10 that other centres may cost


def random_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_kmeans(rows, lists, iterations, seed):
    """Row by row, in float64."""
    rows = rows.astype(np.float64)
    chosen = np.random.Generator(np.random.PCG64(seed)).choice(len(rows), lists, replace=False)
    centres = [rows[at] for at in sorted(chosen)]
    for _ in range(iterations):
        members = [[] for _ in centres]
        for row in rows:
            scores = [float(row @ centre) for centre in centres]
            members[scores.index(max(scores))].append(row)
        for at, own in enumerate(members):
            if own:
                centres[at] = np.sum(own, 0) / np.linalg.norm(np.sum(own, 0))
        sizes = [len(own) for own in members]
        for at, own in enumerate(members):
            if not own:
                largest = sizes.index(max(sizes))
                sides = np.array([1 + module.APART * (-1) ** number for number in range(rows.shape[1])])
                for place, moved in ((at, centres[largest] * sides), (largest, centres[largest] * (2 - sides))):
                    centres[place] = moved / np.linalg.norm(moved)
                sizes[at] = sizes[largest] // 2
                sizes[largest] -= sizes[at]
    return np.array(centres)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [7, 16_384])
def test_k_means_is_that_of_the_slow_twin_also_where_clusters_run_empty(monkeypatch, seed, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rows = random_rows(80, 6, seed)
    rows[40:60] = np.eye(6)[
        0
    ]  # products with it are exact: of the clusters that begin there all but the first run empty
    chosen = np.random.Generator(np.random.PCG64(seed)).choice(80, 25, replace=False)
    assert ((chosen >= 40) & (chosen < 60)).sum() > 2
    found = spherical_kmeans(rows, 25, 4, seed)
    np.testing.assert_allclose(found.numpy(), slow_kmeans(rows, 25, 4, seed), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("exact", [False, True])
def test_each_row_goes_to_the_centre_of_the_slow_twin_and_to_the_first_of_equals(monkeypatch, dtype, exact):
    monkeypatch.setattr(module, "BLOCK", 64)
    rows, centres = clustered_vectors(500, 16, dtype=dtype), random_rows(37, 16)
    if exact:  # small whole numbers, whose products have no rounding: many centres are equally near
        dice = np.random.default_rng(0)
        rows, centres = (dice.integers(-2, 3, (count, 16)).astype(dtype) for count in (500, 37))
        centres[30:] = centres[:7]
    scores, owner = nearest(torch.from_numpy(rows), torch.from_numpy(centres.astype(np.float32)))
    for row, score, own in zip(rows.astype(np.float64), scores.tolist(), owner.tolist(), strict=True):
        right = [float(row @ centre) for centre in centres.astype(np.float64)]
        assert own == right.index(max(right)) and score == pytest.approx(max(right), abs=1e-6)
    assert not exact or owner.max() < 30


def test_every_list_gets_rows_from_the_largest_clusters_first():
    centres = torch.from_numpy(random_rows(4, 6))
    old = centres.clone()
    split_largest(centres, np.array([0, 9, 0, 20]))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(4))
    assert torch.equal(centres[1], old[1])  # 20 is split into 10 and 10, and one of those into 5 and 5
    assert min((centres[at] @ old[3]).item() for at in (0, 2, 3)) > 0.999
    assert len({tuple(row) for row in centres.tolist()}) == 4


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    rows = random_rows(300, 8)
    assert torch.equal(spherical_kmeans(rows, 20, 3, 0), spherical_kmeans(rows, 20, 3, 0))
    assert not torch.equal(spherical_kmeans(rows, 20, 3, 0), spherical_kmeans(rows, 20, 3, 1))


def recall(library, index, queries):
    truth, found = ExactIndex(library).search(queries, K)[1], index.search(queries, K)[1]
    return np.mean([len(set(a) & set(b)) / K for a, b in zip(truth.tolist(), found.tolist(), strict=True)])


@pytest.mark.parametrize("kind", ["clustered", "random"])
def test_lists_made_by_torch_find_as_much_as_those_that_faiss_makes(monkeypatch, kind):
    monkeypatch.setattr("realrag.search.index.EXACT_SUBSET", 0)
    if kind == "clustered":
        library, queries = clustered_vectors(8_000, 32), text_queries(300, 32)
    else:
        library, queries = random_rows(8_000, 32).astype(np.float16), random_rows(300, 32, 1)
    found = {None: [], "cpu": []}
    for seed in range(4):  # one seed's recall moves by 0.01 to either side, whoever makes the lists
        monkeypatch.setattr(ivf, "SEED", seed)
        for device, recalls in found.items():
            index = IVFIndex(library, ivf.build_lists(library, device=device))
            index.probes = 20  # few of 358, so that poor centres would show
            recalls.append(recall(library, index, queries))
    theirs, ours = np.mean(found[None]), np.mean(found["cpu"])
    assert 0.3 < theirs < 0.95 and ours >= theirs - MARGIN


def test_the_rows_lie_in_the_lists_and_codes_that_faiss_would_choose_for_these_centres():
    import faiss

    library = clustered_vectors(3000, 24)
    ours, rows = ivf.build_lists(library, device="cpu"), library.astype(np.float32)
    right = ours.quantizer.search(rows, 1)[1][:, 0]
    places = {}
    for number in range(ours.nlist):
        size = ours.invlists.list_size(number)
        ids = faiss.rev_swig_ptr(ours.invlists.get_ids(number), size).tolist() if size else []
        places |= dict.fromkeys(ids, number)
    assert [places[row] for row in range(3000)] == right.tolist()
    assert ours.ntotal == 3000 and ours.is_trained
    ours.make_direct_map()
    again = ours.reconstruct_n(0, 3000)
    assert np.abs(again - rows).max() < 0.01  # 8 bits of the residuals' range, and no code of another row


def test_the_lists_made_by_torch_are_kept_and_opened_as_any_other(tmp_path, monkeypatch):
    library, queries = clustered_vectors(2000, 16), text_queries(20, 16)
    monkeypatch.setattr("realrag.search.index.EXACT_SUBSET", 0)
    real, asked = ivf.build_lists, []
    monkeypatch.setattr(
        ivf, "build_lists", lambda rows, progress, device: (asked.append(device), real(rows, progress, "cpu"))[1]
    )
    first = open_index(library, tmp_path, "key", kind="ivf", device="cuda:1").search(queries, K)
    monkeypatch.setattr(ivf, "build_lists", None)
    for device in ("cpu", "cuda:1"):
        again = open_index(library, tmp_path, "key", kind="ivf", device=device).search(queries, K)
        assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert asked == ["cuda:1"]


def test_a_gpu_that_is_too_small_leaves_the_work_to_the_cpu_and_other_errors_are_not_hidden(monkeypatch, caplog):
    library = clustered_vectors(400, 8)

    def fail(error):
        def kmeans(*given, **named):
            raise error

        monkeypatch.setattr(module, "spherical_kmeans", kmeans)

    fail(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    with caplog.at_level(logging.WARNING):
        assert ivf.build_lists(library, device="cpu").ntotal == 400
    assert "building it on the CPU" in caplog.text
    fail(RuntimeError("shapes"))
    with pytest.raises(RuntimeError, match="shapes"):
        ivf.build_lists(library, device="cpu")


def test_building_by_torch_tells_its_progress_and_can_be_stopped():
    seen, library = [], clustered_vectors(2000, 16)
    ivf.build_lists(library, lambda done, total: seen.append((done, total)), "cpu")
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] and seen == sorted(seen) and len(seen) == ivf.ITERATIONS + 2

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ivf.build_lists(library, stop, "cpu")
