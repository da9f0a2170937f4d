"""The live page, the report and the trace in a real browser, without a network."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from distribute_challenge import PoolExecutor, TaskTimeout, compute_this
from tests.records import random_rows, write_profile, write_tasks
from tests.running import HANG_S, RunningServer, eventually, script

api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
A_SECOND_OF_BYTES = 100_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no {BROWSERS[0]} here: apt install {BROWSERS[0]}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Look:
    """A page in the browser, and what it asked for and said meanwhile."""

    def __init__(self, browser: Any, width: int = 1600, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(HANG_S * 1000)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.received: list[tuple[float, int]] = []  # when, and how many bytes
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("websocket", self._listen)

    def _listen(self, socket: Any) -> None:
        self.asked.append(socket.url)
        socket.on("framereceived", lambda data: self.received.append((time.monotonic(), len(data))))

    def open(self, url: str) -> Any:
        """Open a page; its answer."""
        return self.page.goto(url)

    def text(self, section: str) -> str:
        """What a section says."""
        return str(self.page.evaluate(TEXT, section))

    def number(self, name: str) -> int:
        """One of the numbers at the top."""
        value = self.page.locator("#summary dl div").filter(has_text=name).locator("dd").inner_text()
        return int(value.split("/")[0].replace(",", ""))

    def rows(self, column: str, source: str) -> list[Any]:
        """A column of the data that a source of the lanes holds: `shapes`, `running` or `marks`."""
        return list(self.page.evaluate(COLUMNS, [source, column]))

    def await_rows(self, source: str, column: str, wanted: Callable[[list[Any]], bool], what: str) -> None:
        """Wait for what a source holds."""
        eventually(lambda: self.page.wait_for_timeout(50) or wanted(self.rows(column, source)), what)

    @property
    def hosts(self) -> set[str]:
        """Whom it asked for something."""
        return {urlsplit(url).netloc for url in self.asked if not url.startswith("data:")}

    def is_too_wide(self) -> bool:
        """Whether one has to scroll sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


TEXT = """
section => {
  const text = node => node.nodeType == Node.TEXT_NODE ? node.data : node.nodeName == "STYLE" ? ""
    : [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes].map(text).join("")
  return text(document.getElementById(section))
}
"""
COLUMNS = """
([source, column]) => {
  const found = []
  for (const model of Bokeh.documents[0]?._all_models.values() ?? []) {
    if (model.type == "ColumnDataSource" && model.name == source)
      found.push(...model.get_array(column))
  }
  return found
}
"""


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[..., Look]]:
    """Open looks at pages, which are closed in the end."""
    looks: list[Look] = []

    def new(*arguments: Any, **options: Any) -> Look:
        looks.append(Look(chromium, *arguments, **options))
        return looks[-1]

    yield new
    for one in looks:
        one.context.close()


@compute_this
def square(x: int) -> int:
    return x * x


@compute_this
def fail() -> None:
    raise ValueError("it is <b>broken</b> & gone")


@compute_this
def wait() -> None:
    time.sleep(600)


@pytest.fixture
def url(start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the page of a server with two workers, the default one of the calls made in this test."""
    server = start_server(2, "--dashboard-address", "127.0.0.1:0")
    monkeypatch.setenv("COMPUTE_SERVER", server.address)
    assert server.process.stdout is not None
    return server.process.stdout.readline().split()[1]


def test_the_page_shows_what_the_pool_does(url: str, look: Callable[..., Look]):
    seen = look()
    seen.open(url)
    eventually(lambda: "live, each second" in seen.text("summary"), "it is there")
    assert seen.number("finished") == 0
    # Lanes fill, counters rise.
    with PoolExecutor() as pool:
        assert sum(pool.map(square, range(500))) == sum(x * x for x in range(500))
        eventually(lambda: seen.number("finished") == 500, "functions are counted")
        seen.await_rows("shapes", "name", lambda names: "square" in names, "lanes fill")
        assert "square" in seen.text("functions")
        # What runs now, for whom.
        running = wait().submit()
        seen.await_rows("running", "name", lambda names: names == ["wait"], "it is seen to run")
        eventually(lambda: "wait" in seen.text("workers"), "the table has it")
        # A failure with its text, a time limit, and a worker that is lost.
        with pytest.raises(ValueError, match="broken"):
            fail().run()
        eventually(lambda: "ValueError: it is <b>broken</b> & gone" in seen.text("failures"), "why it failed")
        with pytest.raises(TaskTimeout):
            wait().run(timeout=0.1)
        pool.kill_workers()
    running.kill()
    eventually(lambda: seen.number("workers lost") >= 1, "a worker was lost")
    seen.await_rows("marks", "text", lambda texts: "worker replaced" in texts, "it was replaced")
    seen.await_rows("marks", "marker", lambda markers: "diamond" in markers, "the time limit has its mark")
    assert seen.number("failed") >= 2
    assert (seen.errors, seen.hosts) == ([], {urlsplit(url).netloc})


def test_whoever_has_no_token_is_told_so(url: str, look: Callable[..., Look]):
    seen = look()
    answer = seen.open(url.partition("?")[0])
    assert answer.status == 403
    assert "open the URL that the server printed" in seen.page.content()


@pytest.mark.parametrize(("width", "scheme"), [(1600, "light"), (400, "dark")])
def test_the_page_fits(url: str, look: Callable[..., Look], width: int, scheme: str):
    square(3).run()
    seen = look(width, color_scheme=scheme)
    seen.open(url)
    eventually(lambda: seen.number("finished") == 1, "it is there")
    assert not seen.is_too_wide()
    shown = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shown == "rgb(255, 255, 255)") == (scheme == "light")


def test_another_window_shows_what_was_before(url: str, look: Callable[..., Look]):
    square(3).run()
    seen = look()
    seen.open(url)
    seen.await_rows("shapes", "name", lambda names: names == ["square"], "it is shown")
    seen.page.get_by_role("combobox").select_option("the last hour")
    seen.await_rows("shapes", "name", lambda names: names == ["square"], "it is shown, once")
    seen.page.get_by_role("button", name="pause").click()
    before = seen.number("finished")
    square(3).run()
    eventually(lambda: seen.number("finished") == before + 1, "numbers go on while the window stands still")


def test_no_browser_is_sent_much(url: str, look: Callable[..., Look]):
    seen = look()
    seen.open(url)
    eventually(lambda: "live, each second" in seen.text("summary"), "it is there")
    seen.received.clear()
    began = time.monotonic()
    with PoolExecutor() as pool:
        while time.monotonic() < began + 5:
            list(pool.map(square, range(2000)))
            seen.page.wait_for_timeout(1)  # What it received is told meanwhile.
    sent = sum(size for _, size in seen.received)
    assert 0 < sent < A_SECOND_OF_BYTES * (time.monotonic() - began)


def write_record(folder: Path, count: int) -> None:
    write_tasks(folder / "a&b.csv", rows := random_rows(count, 3), [18812, 18813, 18814])
    write_profile(folder / "a&b.csv", 3, round(rows[-1].ended) + 1)


@pytest.mark.parametrize(("count", "words"), [(300, "each drawn for itself"), (30_000, "aggregated")])
def test_the_report_opens_offline(tmp_path: Path, look: Callable[..., Look], count: int, words: str):
    write_record(tmp_path, count)
    result = script("grapher.py", "a&b.csv", "--html", "report.html", cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)
    assert words in result.stdout
    report = tmp_path / "report.html"
    assert report.stat().st_size < 5e6
    seen = look(offline=True)
    seen.open(report.as_uri())
    seen.await_rows("shapes", "name", lambda names: len(names) > 100, "lanes are filled")
    assert seen.page.title() == "a&b.csv"
    assert words in seen.text("lanes")
    assert "func_3" in seen.text("functions")
    assert "ValueError: <b>no</b>" in seen.text("failures")
    assert (seen.errors, seen.hosts) == ([], {""})
    assert not seen.is_too_wide()


def test_who_points_at_a_task_is_told_about_it(tmp_path: Path, look: Callable[..., Look]):
    write_record(tmp_path, 300)
    script("grapher.py", "a&b.csv", "--html", "report.html", cwd=tmp_path)
    seen = look(offline=True)
    seen.open((tmp_path / "report.html").as_uri())
    seen.await_rows("shapes", "name", lambda names: len(names) > 100, "lanes are filled")
    box = seen.page.locator("#lanes canvas").first.bounding_box()

    def point(step: int) -> bool:
        seen.page.mouse.move(box["x"] + 80 + 7 * step, box["y"] + 20)
        seen.page.wait_for_timeout(50)
        return seen.page.get_by_text("a.py:7").count() > 0

    assert any(point(step) for step in range(60))
