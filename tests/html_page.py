"""HTML pages, parsed; parsing fails where elements are not closed in the order they were opened."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import cv2
import numpy as np

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and its text but for styles."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data + " "

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def pictures(self, caption=""):
        return [decode(img["src"]) for img in self.all("img") if img["alt"].startswith(caption)]


def decode(uri):
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
