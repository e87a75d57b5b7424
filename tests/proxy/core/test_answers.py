"""The proxy's own pages."""

import base64
import hashlib
import re

from carrel_proxy.core.answers import Trouble, answer_bytes, trouble_answer

NASTY = "'\"><img src=x onerror=alert(1)>"


def test_a_page_escapes_what_it_is_given() -> None:
    trouble = Trouble(503, NASTY, NASTY, action=(f"/hub/spawn/{NASTY}", NASTY))
    body = trouble_answer(trouble, page=True).body
    assert b"<img" not in body
    assert b"<script" not in body


def test_a_pages_policy_allows_its_own_style_alone() -> None:
    answer = trouble_answer(Trouble(404, "t", "m"), page=True)
    policy = dict(answer.fields)[b"Content-Security-Policy"].decode()
    style = re.search(rb"<style>(.*)</style>", answer.body, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1)).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_a_head_has_the_length_and_not_the_body() -> None:
    raw = answer_bytes(
        trouble_answer(Trouble(404, "t", "m"), page=False), keep_alive=True, head_only=True
    )
    assert raw.endswith(b"\r\n\r\n")
    assert b"Content-Length: 31\r\n" in raw
