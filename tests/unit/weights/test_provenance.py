from __future__ import annotations

from pathlib import Path

import pytest

from cgeartheye import __version__
from cgeartheye.weights import provenance

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checkout(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / ".git" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / ".git" / name).write_text(text)
    return root / "src" / "cgeartheye"


@pytest.mark.parametrize(
    "files",
    [
        {"HEAD": f"{COMMIT}\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs/heads/main": f"{COMMIT}\n"},
        {"HEAD": "ref: refs/heads/main\n", "packed-refs": f"# pack-refs\n{'9' * 40} refs/heads/old\n{COMMIT} refs/heads/main\n"},
    ],
    ids=["detached", "loose", "packed"],
)
def test_a_checkout_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    monkeypatch.setattr(provenance, "_PACKAGE", checkout(tmp_path, files))
    assert provenance.code_version() == f"{__version__} (commit 0123456789ab)"


def test_an_installed_package_names_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "lib" / "python" / "cgeartheye")
    assert provenance.code_version() == __version__
