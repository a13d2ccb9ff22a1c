"""Extension of Griffe for mkdocs.yml: docstrings as this project writes them."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=`)")
EXAMPLE = re.compile(r"^(\s*Example):$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """``Example:`` is the section that Griffe knows as ``Examples:``, and where Sphinx's roles name
    a thing the name is enough."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"\1s:", ROLE.sub("", obj.docstring.value))
