"""Write `docs/reference/<verb>.md` from the settings' own docstrings: every key, its default, its meaning and origin."""

from __future__ import annotations

from pathlib import Path

from cgeartheye.files import write_text
from cgeartheye.settings.project import SECTIONS, describe


def main() -> None:
    """Write one page a verb beside this file."""
    folder = Path(__file__).parent / "reference"
    for name, section in SECTIONS.items():
        rows = [f"| `{key}` | {_cell(default)} | {_cell(text)} |" for key, default, text in describe(section)]
        head = f"# Settings of `{name}`\n\n{(section.__doc__ or '').strip()}\n\n| key | default | meaning |\n|---|---|---|\n"
        write_text(folder / f"{name}.md", head + "\n".join(rows) + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
