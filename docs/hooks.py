"""What the site has besides docs/: the pages of the root and the notebooks. Run by mkdocs (`hooks` in mkdocs.yml).

Links are written for GitHub, where these lie one folder above docs/; here they lie beside its pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")


def on_files(files: Files, config: Any) -> Files:
    root = Path(config["config_file_path"]).parent
    for name in PAGES:
        text = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=as_beside_docs(text)))
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    for name in (*PAGES, "notebooks/"):
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    return markdown


def as_beside_docs(text: str) -> str:
    """A page of the root with links as they are from within docs/."""
    return text.replace("](docs/", "](").replace("](README.md", "](index.md")
