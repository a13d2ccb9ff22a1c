"""Hooks of mkdocs.yml: pages that are no files of docs/, and Markdown as GitHub reads it.

CONTRIBUTING.md and CHANGELOG.md become pages, and every module of docs/api.md gets one below
reference/ with its docstrings in full.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import api
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import vpd
import vpd.data

ROOT = Path(__file__).parent.parent

# Packages that import on first use: nothing but these tables says where their names come from.
LAZY = {"vpd": vpd._PUBLIC, "vpd.data": vpd.data._PUBLIC}
PROJECT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
LIST_AFTER_TEXT = re.compile(r"^((?![-|#\s]|\d+\. ).+)\n(?=- |\d+\. )", re.MULTILINE)
CODE_IN_TABLE = re.compile(r"^\|.*\|$", re.MULTILINE)


def reference() -> dict[str, str]:
    """Path of a page -> its text, for mkdocstrings."""
    modules = ("vpd", *sorted(api.MODULES))
    pages = {}
    for module in modules:
        homes = LAZY.get(module, {})
        # An object has one page: that of its own module where there is one.
        elsewhere = [f"- [{n}]({home}.md)" for n, home in homes.items() if home in modules]
        here = [f"::: {home}.{n}\n" for n, home in homes.items() if home not in modules]
        whole = f"::: {module}\n    options: {{show_root_heading: false}}\n"
        body = [*elsewhere, "", *here] if homes else [whole]
        pages[f"reference/{module}.md"] = "\n".join([f"# {module}", "", *body])
    return pages


def on_config(config: MkDocsConfig) -> None:
    pages = [{Path(path).name.removesuffix(".md"): path} for path in reference()]
    section = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    section.append({"Docstrings": pages})


def on_files(files: Files, config: MkDocsConfig) -> None:
    pages = {page: (ROOT / name).read_text() for name, page in PROJECT.items()} | reference()
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    path = page.file.src_uri
    up = "../" * path.count("/")
    for name, own in PROJECT.items():
        markdown = markdown.replace(f"({up}../{name}", f"({up}{own}")
        if path == own:
            markdown = markdown.replace("](docs/", "](")
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else github(part) for part in parts)


def github(markdown: str) -> str:
    """A list may follow text without an empty line; a bar in a table's code is written `\\|`."""
    markdown = LIST_AFTER_TEXT.sub(r"\1\n\n", markdown)
    return CODE_IN_TABLE.sub(
        lambda row: re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), row[0]), markdown
    )
