"""HTML and SVG built from parts: every text that is not markup already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

_VOID = {"meta", "link", "img", "br", "input", "line", "rect", "circle", "path", "use", "polyline"}


class Markup(str):
    """Text that is markup. A plain str is never taken for one."""

    __slots__ = ()


Part: TypeAlias = "str | Iterable[Part] | None"


def tag(name: str, /, *parts: Part, **attributes: object) -> Markup:
    """An element. ``class_`` is class, ``data_trial`` is data-trial; None and False are left out,
    True is an attribute without a value."""
    shown = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown += f" {key.rstrip('_').replace('_', '-')}"
        if value is not True:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            shown += f'="{html.escape(text)}"'
    inner = join(parts)
    if not inner and name in _VOID:
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{inner}</{name}>")


def join(parts: Iterable[Part], between: str = "") -> Markup:
    texts = []
    for part in parts:
        if part is None:
            continue
        if isinstance(part, Markup):
            texts.append(str(part))
        elif isinstance(part, str):
            texts.append(html.escape(part))
        else:
            texts.append(str(join(part)))
    return Markup(between.join(texts))
