"""Opens a page in a headless browser (Qt's Chromium) and writes what it saw as JSON: widths, images, console messages, requests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")  # in a container there may be neither

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtWebEngineCore import (
    QWebEnginePage,
    QWebEngineProfile,
    QWebEngineSettings,
    QWebEngineUrlRequestInfo,
    QWebEngineUrlRequestInterceptor,
)
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

PATIENCE = 60_000  # milliseconds
MEASURED = """JSON.stringify({
    title: document.title,
    window: innerWidth,
    page: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    images: Array.from(document.images, image => [image.alt, image.complete && image.naturalWidth > 0]),
    beyond: Array.from(document.body.querySelectorAll("*"))
        .filter(found => !found.closest(".scroll table") && found.getBoundingClientRect().right > innerWidth + 0.5)
        .map(found => found.tagName),
    injected: document.querySelectorAll("script, iframe, object").length,
    missing: Array.from(document.querySelectorAll("a[href^='#']")).filter(a => !document.getElementById(a.hash.slice(1))).length,
})"""


class Requests(QWebEngineUrlRequestInterceptor):
    """Notes the address of everything that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def interceptRequest(self, info: QWebEngineUrlRequestInfo) -> None:  # noqa: N802, Qt's name
        """Called before every request."""
        self.seen.append(info.requestUrl().toString()[:200])


class Page(QWebEnginePage):
    """A page that notes what is said on the console."""

    said: list[str]

    def javaScriptConsoleMessage(self, level: Any, message: str, line: int, source: str) -> None:  # noqa: N802, Qt's name
        """Called for every message, errors and violations of the page's policy included."""
        self.said.append(f"{level}: {message} ({source}:{line})")


def main(path: str, width: int, out: str, screenshot: str = "") -> None:
    """Opens the page at a width of so many pixels; the picture is as high as the page."""
    application = QApplication(["browser"])
    profile, requests = QWebEngineProfile(), Requests()
    profile.setUrlRequestInterceptor(requests)
    page = Page(profile)
    page.said = []
    page.settings().setAttribute(QWebEngineSettings.WebAttribute.LocalContentCanAccessRemoteUrls, True)  # or requests go unseen
    view = QWebEngineView()
    view.setPage(page)
    view.resize(width, 800)

    def done(text: str) -> None:
        found = json.loads(text)
        Path(out).write_text(json.dumps({**found, "said": page.said, "requests": requests.seen}), encoding="utf-8")
        view.resize(width, min(int(found["height"]), 12_000))
        QTimer.singleShot(1500 if screenshot else 0, end)

    def end() -> None:
        if screenshot:
            view.grab().save(screenshot)
        application.quit()

    view.loadFinished.connect(lambda _: QTimer.singleShot(500, lambda: page.runJavaScript(MEASURED, done)))
    view.load(QUrl.fromLocalFile(str(Path(path).resolve())))
    view.show()
    QTimer.singleShot(PATIENCE, application.quit)
    application.exec()
    view.setPage(None)
    page.deleteLater()  # before its profile
    application.processEvents()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
