from __future__ import annotations

import pytest

pytest.importorskip("lightning")

DEBUG = "configs/refer/debug.yaml"
KEPT = ("--freeze", "unet", "--text_adapter", "false")  # the head alone: quick to count


def test_table(run):
    code, out, err = run("info", "cost", "--config", DEBUG, *KEPT, "--devices", "T4", "A100-40")
    assert code == 0, err
    for part in ("| unet ", "| decoder ", "once for a row"):
        assert part in out
    lines = [line.split("|")[1:3] for line in out.splitlines() if "T4 " in line and "|" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [["T4", "4 x 1"]]  # 8 do not fit


@pytest.mark.parametrize(
    "task",
    [
        "semantic",
        pytest.param("depth", marks=pytest.mark.slow),
        pytest.param("panoptic", marks=pytest.mark.slow),
    ],
)
def test_other_tasks(run_json, task):
    words = (
        "--config",
        f"configs/{task}/debug.yaml",
        "--devices",
        "T4",
        "--processes",
        "1,2",
        *KEPT,
    )
    found = run_json("info", "cost", task, *words)
    assert found["steps"] == 10
    assert found["step_flop"] > 1e9
    assert {part["phase"] for part in found["parts"]} == {"forward", "backward", "optimizer"}
    one, two = found["plans"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert found["prediction"]["seconds"]["T4"] > 0


def test_a_device_that_is_not_known(refused):
    assert "T5" in refused("info", "cost", "--config", DEBUG, "--devices", "T5")
