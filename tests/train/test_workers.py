"""Workers that share a job: the same results as one process, whatever becomes of them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch

from vpd.cli import evaluate_refer, main
from vpd.cli.launch import Launch, scored
from vpd.tasks import store
from vpd.train import workers


@pytest.fixture(scope="module")
def ray():
    """A cluster that the tests share; each would start one of its own otherwise."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # by itself it lets everything else go first
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
        with workers.cluster(2) as module:
            yield module


def counting(folder):
    """Squares; notes where each is computed. A number that has a file ``kill-N`` takes its worker
    with it, once for each byte in there."""

    def ready():
        import os
        import signal
        from pathlib import Path

        import torch

        def square(number):
            (Path(folder) / f"by-{number}").write_text(f"{os.getpid()} {torch.get_num_threads()}")
            fatal = Path(folder) / f"kill-{number}"
            if fatal.exists() and (left := fatal.read_text()):
                fatal.write_text(left[1:])
                os.kill(os.getpid(), signal.SIGKILL)
            if number < 0:
                raise FileNotFoundError(2, "no such number", str(number))
            return number**2

        return square

    return ready


def reads(path):
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_results_come_in_order_and_the_dead_are_replaced(ray, tmp_path):
    (tmp_path / "kill-3").write_text("xx")
    (tmp_path / "kill-11").write_text("x")
    taken = []
    parts = (taken.append(i) or i for i in range(20))
    found = workers.spread(counting(tmp_path), parts, 2)
    assert next(found) == 0
    assert len(taken) < 20  # not more than workers can hold
    assert list(found) == [i**2 for i in range(1, 20)]
    assert (reads(tmp_path / "kill-3"), reads(tmp_path / "kill-11")) == ("", "")
    places = [reads(tmp_path / f"by-{i}").split() for i in range(20)]
    assert len({pid for pid, _ in places}) >= 2
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {int(threads) for _, threads in places} == {share}


@pytest.mark.slow
def test_a_part_that_kills_every_worker_ends_the_job(ray, tmp_path):
    (tmp_path / "kill-1").write_text("xxx")
    with pytest.raises(ChildProcessError, match="part 1: 3 workers died over it"):
        list(workers.spread(counting(tmp_path), range(2), 1))
    with pytest.raises(OSError, match="no such number") as error:
        list(workers.spread(counting(tmp_path), [2, -2], 1))
    assert "Traceback" not in str(error.value)


def test_bad_requests(monkeypatch):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        list(workers.spread(int, [1], 0))
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'vpd\[ray\]'"):
        list(workers.spread(int, [1], 1))


@pytest.fixture(scope="module")
def refer(tmp_path_factory):
    """A model whose masks are neither empty nor full, on disk."""
    model = tiny.segmenter()
    tiny.balance(model)
    return str(store.save(model, tmp_path_factory.mktemp("model") / "refer", dtype=torch.float32))


def ready_of(model, limit=6):
    return partial(
        evaluate_refer.ready,
        {"model": model, "weights": None, "device": "cpu", "dtype": "float32"},
        {"data": "tabletop", "root": None, "split": "val", "split_by": None, "limit": limit},
        None,
        [0],
        {},
        {"batch": 4, "text_blind": True, "limit": None, "progress": False},
    )


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_of_an_evaluation(ray, refer, tmp_path):
    own = ready_of(refer)
    victim = str(tmp_path / "killed")

    def fatal():
        import os
        import signal
        from pathlib import Path

        score = own()

        def dying(group):
            if getattr(group, "index", 0) == 2 and not Path(victim).exists():
                Path(victim).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return score(group)

        return dying

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))  # as many as a worker
    try:
        (whole,) = scored(own, Launch("local", 1, "cpu")).found
    finally:
        torch.set_num_threads(threads)
    found = workers.score(fatal, 2, progress=False)
    assert Path(victim).exists()
    assert found.found[0].metrics == whole.metrics
    assert 0 < whole.metrics["mIoU"] < 100


@pytest.mark.slow
def test_commands_with_workers(ray, refer, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d", "e"):
        cv2.imwrite(f"pictures/{name}.png", rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    Path("pictures/broken.png").write_bytes(b"no image")
    words = ["predict", "pictures", "the red cube", "--model", refer, "--no-figure"]
    answers = {}
    for out, more in (("one", []), ("two", ["--launcher", "ray", "--workers", "2"])):
        capfd.readouterr()
        assert main([*words, "--out", out, *more]) == 1
        answers[out] = capfd.readouterr().out.replace(f"{out}/", "")
        assert "broken.png" in answers[out]
    assert answers["one"] == answers["two"]
    for path in Path("one").iterdir():
        assert path.read_bytes() == (Path("two") / path.name).read_bytes()
    assert len(list(Path("two").iterdir())) == 5

    words = ["evaluate", "--model", refer, "--limit", "4", "--batch", "4"]
    tables = []
    for more in ([], ["--launcher", "ray"]):
        capfd.readouterr()
        assert main([*words, *more]) == 0
        tables.append(capfd.readouterr().out.rpartition("\n")[0].rsplit("\n", 1)[0])
    assert tables[0] == tables[1]
    assert main([*words, "--launcher", "ray", "--model", "nowhere"]) == 2
