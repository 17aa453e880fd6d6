"""The web page: the files of ``web/`` as one document, with nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files

from starlette.responses import HTMLResponse

_STYLE, _SCRIPT = (
    re.compile(r'<link rel="stylesheet" href="(\w+\.css)">'),
    re.compile(r'<script src="(\w+\.js)"></script>'),
)
_NO_KEYS, _KEYS = (f'<meta name="mesh-keys" content="{word}">' for word in ("no", "yes"))


def page(needs_key: bool) -> HTMLResponse:
    """The page, and the policy that lets a browser run nothing else on it. ``needs_key``: it asks for an API key."""
    html, policy = _read()
    if needs_key:
        html = html.replace(_NO_KEYS, _KEYS)
    told = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
    return HTMLResponse(html, headers=told)


@functools.cache
def _read() -> tuple[str, str]:
    hashes = {"script": list[str](), "style": list[str]()}

    def inline(kind: str, found: re.Match[str]) -> str:
        text = _file(found[1])
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
        return f"<{kind}>{text}</{kind}>"

    html = _STYLE.sub(functools.partial(inline, "style"), _file("page.html"))
    html = _SCRIPT.sub(functools.partial(inline, "script"), html)
    rules = [f"{kind}-src {' '.join(found)}" for kind, found in hashes.items()]
    rest = ["connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    return html, "; ".join(["default-src 'none'", *rules, *rest])


def _file(name: str) -> str:
    return (files("mesh") / "ingress" / "web" / name).read_text(encoding="utf-8")
