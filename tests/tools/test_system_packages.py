"""Search and installation of the system packages that tests need."""

import os

import system_packages


def test_system_packages_find_what_is_on_path(tmp_path, monkeypatch):
    tool = system_packages.Tool("thing", ("thing",), "thing-package", "none", probe=("--version",))
    monkeypatch.setattr(system_packages, "TOOLS", (tool,))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert system_packages.find("thing") is None
    assert "thing-package" in system_packages.skip_reason("thing")
    stub = tmp_path / "thing"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    assert system_packages.find("thing") is None  # a stub that does not start is no tool
    stub.write_text("#!/bin/sh\nexit 0\n")
    assert system_packages.find("thing") == str(stub)
    assert system_packages.skip_reason("thing") is None


def test_system_packages_where_it_may_not_install_says_what_will_not_run(monkeypatch, capsys):
    tool = system_packages.Tool("thing", ("no-such-thing",), "thing-package", "tests/test_thing.py")
    monkeypatch.setattr(system_packages, "TOOLS", (tool,))
    monkeypatch.setattr(system_packages, "_privilege", lambda: None)
    assert system_packages.main() == 1
    printed = capsys.readouterr().out
    assert "Not run, because thing is missing: tests/test_thing.py" in printed
    assert "sudo apt-get install -y --no-install-recommends thing-package" in printed
