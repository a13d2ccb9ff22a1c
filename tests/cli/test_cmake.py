"""``vpd info cmake``: where C++ projects find the core."""

from __future__ import annotations

import vpd


def test_prefix_is_the_folder_around_the_package(tmp_path, monkeypatch, run_json, run):
    package = tmp_path / "vpd"
    (package / "cmake").mkdir(parents=True)
    (package / "cmake" / "vpd-config.cmake").touch()
    monkeypatch.setattr("vpd._load.core.__file__", str(package / "_C.so"))
    assert run_json("info", "cmake") == {"prefix": str(tmp_path)}
    assert run("info", "cmake")[1] == f"{tmp_path}\n"


def test_a_checkout_says_what_is_missing(tmp_path, monkeypatch, run):
    monkeypatch.setattr("vpd._load.core.__file__", str(tmp_path / "_C.so"))
    monkeypatch.setattr(vpd, "__path__", [str(tmp_path)])
    code, _, err = run("info", "cmake")
    assert code == 2
    assert "pip install ." in err
