"""The book in a real browser, from disk, without a network: nothing fails to load, and everything can be used.

Headless Chromium is driven through its debugging port (the DevTools protocol), which needs no driver and no further package
than websocket-client, which Jupyter brings.
"""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_book import course_book, toy_book

websocket = pytest.importorskip("websocket")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CHROMIUM = next(filter(None, map(shutil.which, (*NAMES, MAC))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: install the package chromium to test the book in it"
    ),
]


class Browser:
    """One tab of a headless Chromium; ``trouble`` collects what failed: requests, console errors, exceptions."""

    def __init__(self, folder: Path, *flags: str) -> None:
        blocked = ("--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND")  # the network, twice
        quiet = ("--no-first-run", "--disable-background-networking", "--disable-extensions", "--disable-gpu")
        port = ("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={folder}")
        command = [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            *blocked,
            *quiet,
            *port,
            *flags,
        ]
        self.process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            announced = folder / "DevToolsActivePort"
            wait(lambda: announced.exists() and announced.read_text().count("\n"), "Chromium does not start")
            number, path = announced.read_text().split("\n")[:2]
            self.socket = websocket.create_connection(f"ws://127.0.0.1:{number}{path}", timeout=60)
            self.numbers, self.session, self.trouble, self.urls, self.loaded = itertools.count(1), None, [], [], 0
            tab = wait(
                lambda: [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"], "no tab"
            )
            target = {"targetId": tab[0]["targetId"], "flatten": True}
            self.session = self.send("Target.attachToTarget", **target)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def send(self, method: str, **params) -> dict:
        number = next(self.numbers)
        session = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "navigated" in message.get("error", {}).get("message", ""):
                    raise Leaving
                assert "error" not in message, message
                return message["result"]
            self.note(message.get("method"), message.get("params", {}))

    def note(self, event: str, about: dict) -> None:
        match event:
            case "Page.loadEventFired":
                self.loaded += 1
            case "Network.requestWillBeSent":
                self.urls.append(about["request"]["url"][:200])
            case "Network.loadingFailed":
                self.trouble.append(f"failed request: {about}")
            case "Runtime.exceptionThrown":
                self.trouble.append(f"exception: {about['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.trouble.append(f"console: {about['args']}")
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.trouble.append(f"log: {about['entry']}")

    def open(self, path: Path) -> None:
        self.follow(lambda: self.send("Page.navigate", url=path.as_uri()), f"{path} does not load")

    def follow(self, act: Callable[[], object], otherwise: str) -> None:
        """Does what leads to another page, and waits for that; an AssertionError where it does not come."""
        before = self.loaded
        with contextlib.suppress(Leaving):
            act()
        wait(lambda: self.send("Runtime.evaluate", expression="1") and self.loaded > before, otherwise)

    def ask(self, expression: str):
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "End": 35}
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            about = {"key": key, "code": key, "windowsVirtualKeyCode": code.get(key, 0)}
            self.send("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def screen(self, width: int, height: int = 900) -> None:
        about = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **about)

    def theme(self, name: str) -> None:
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        shot = self.send(
            "Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self.extent()} if whole else {})
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def extent(self) -> dict:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12_000), "scale": 1}

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Leaving(Exception):
    """The page that was asked gave way to another before it could answer."""


def wait(ready, otherwise: str, seconds: float = 60):
    """What ``ready()`` returns once it is true; an AssertionError after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Leaving):
            if found := ready():
                return found
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    return toy_book(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    browser.screen(1280)
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def nothing_fails(browser):
    browser.trouble.clear()
    browser.urls.clear()
    yield
    assert not browser.trouble
    assert [url for url in browser.urls if not url.startswith(("file:", "data:", "about:"))] == []


def test_the_network_is_blocked_and_trouble_is_seen(browser, book):
    page = book / "probe.html"
    page.write_text('<!doctype html><script src="https://example.org/a.js"></script><img src="missing.png">')
    browser.open(page)
    page.unlink()
    assert sum("failed request" in line for line in browser.trouble) == 2
    browser.trouble.clear()
    browser.urls.clear()


def test_every_page_opens_from_disk_and_every_figure_is_there(browser, book):
    for page in sorted(book.glob("*.html")):
        browser.open(page)
        assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), page.name
        assert browser.ask("getComputedStyle(document.body).margin") == "0px", page.name
    assert browser.urls


def test_mathematics_is_set_by_the_browser(browser, book):
    browser.open(book / "02_toy.html")
    assert browser.ask("document.querySelectorAll('math').length") >= 4
    assert browser.ask("document.querySelector('math msub').namespaceURI").endswith("MathML")
    fraction = "document.querySelector('math[display=block] mfrac')"
    top, bottom = (browser.ask(f"{fraction}.children[{i}].getBoundingClientRect().top") for i in (0, 1))
    assert bottom > top + 5, "a fraction's parts stand one above the other"
    assert browser.ask("document.fonts.ready.then(() => [...document.fonts].map(f => f.status).join())") == "loaded"
    prose = "[...document.querySelectorAll('main p, main li, main td')].map(e => e.cloneNode(true))"
    left = (
        f"{prose}.map(e => {{ e.querySelectorAll('code').forEach(c => c.remove()); return e.textContent }}).join(' ')"
    )
    assert "$" not in browser.ask(left)


def test_the_arrow_keys_move_a_slider_and_its_figure(browser, book):
    browser.open(book / "sliders.html")
    for name in browser.ask("Object.keys(GRIDS)"):
        figure = f"document.querySelector('figure[data-grid=\"{name}\"]')"
        state = f"""(() => {{ const f = {figure}; return [f.querySelector('output').textContent,
            f.querySelector('input').getAttribute('aria-valuetext'), f.querySelector('.values b').textContent,
            f.querySelector('svg[role=img]').getAttribute('aria-label'), f.querySelector('.mark').getAttribute('transform')] }})()"""
        browser.ask(f"{figure}.querySelector('input').focus()")
        before = browser.ask(state)
        browser.press("ArrowRight")
        after = browser.ask(state)
        assert all(a != b for a, b in zip(after, before, strict=True)), (before, after)
        browser.press("End")
        last = browser.ask(f"GRIDS['{name}'].slider.labels.at(-1)")
        shown = browser.ask(state)
        assert shown[0] == last and last in shown[1]
        value, digits, unit = browser.ask(
            f"(() => {{ const p = GRIDS['{name}'].panels[0]; return [Object.values(p.series)[0].at(-1), p.digits, p.unit] }})()"
        )
        assert shown[2] == f"{value:.{digits}f}{unit}"


def test_the_tab_key_reaches_search_theme_contents_links_and_the_slider(browser, book):
    browser.open(book / "sliders.html")
    seen = []
    for _ in range(60):
        browser.press("Tab")
        seen.append(
            browser.ask("document.activeElement.id || document.activeElement.className || document.activeElement.rel")
        )
        assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") != "none", (
            f"no focus shown: {seen[-1]}"
        )
        if seen[-1] == "next" or seen[-1] == "prev":
            break
    assert seen[0] == "skip"
    assert {"theme", "search", "slider-rank-input", "slider-groups-input", "slider-keep-ratio-input"} <= set(seen)


def test_search_finds_a_word_and_leads_to_it(browser, book):
    browser.open(book / "index.html")
    browser.press("/")
    assert browser.ask("document.activeElement.id") == "search"
    browser.send("Input.insertText", text="quokka")
    found = browser.ask("[...document.querySelectorAll('#found a')].map(a => a.getAttribute('href'))")
    assert found == ["02_toy.html#Step-2-%C2%B7-Threshold"]
    assert browser.ask("document.getElementById('found-count').textContent") == "1 found"
    browser.press("ArrowDown")
    browser.follow(lambda: browser.press("Enter"), "the result does not open")
    assert browser.ask("decodeURIComponent(location.hash)") == "#Step-2-·-Threshold"
    assert browser.ask("document.querySelector(':target').textContent").startswith("Step 2")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("thresholds", "02_toy.html#Step-2"),
        ("treshhold", "table.html"),
        ("serves", "how-to-serve.html"),
        ("tau", "table.html"),
    ],
)
def test_search_finds_other_forms_in_chapters_docs_and_reference(browser, book, query, found):
    browser.open(book / "index.html")
    browser.press("/")
    browser.send("Input.insertText", text=query)
    links = browser.ask("[...document.querySelectorAll('#found a')].map(a => a.getAttribute('href'))")
    assert any(link.startswith(found) for link in links), links
    assert browser.ask("document.querySelectorAll('#found mark').length") >= 1


def test_search_says_what_it_took_a_slip_for(browser, book):
    browser.open(book / "index.html")
    browser.press("/")
    browser.send("Input.insertText", text="quoka")
    assert browser.ask("document.getElementById('found-count').textContent") == "no “quoka”, but “quokka”: 1 found"


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "no clipboard"])
def test_a_button_copies_a_block_of_code_and_says_so(browser, book, clipboard):
    browser.open(book / "02_toy.html")
    browser.ask(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: "
        + ("{writeText: async (text) => { copied.push(text) }}" if clipboard else "undefined")
        + "}); document.addEventListener('copy', () => copied.push(document.activeElement.value))"
    )
    buttons = browser.ask("document.querySelectorAll('main .highlight .copy').length")
    assert buttons == browser.ask("document.querySelectorAll('main .highlight').length") > 1
    browser.ask("document.querySelector('.copy').focus()")
    browser.press("Enter")
    wait(lambda: browser.ask("document.querySelector('.copy').textContent") == "Copied", "it does not say so")
    assert browser.ask("copied") == ["for x in range(2):\n    print(x)\n"]
    assert browser.ask("document.querySelectorAll('textarea').length") == 0


def test_of_examples_only_what_is_typed_is_copied(browser, book):
    browser.open(book / "api-core-compress.html")
    browser.ask(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text }}})"
    )
    browser.ask(
        "[...document.querySelectorAll('.highlight')].find(e => e.querySelector('.gp')).querySelector('.copy').click()"
    )
    copied = wait(lambda: browser.ask("window.copied"), "nothing was copied")
    assert copied.startswith("base = ") and ">>>" not in copied


def test_on_a_phone_the_copy_button_does_not_lie_on_the_code(browser, book):
    browser.screen(390, 800)
    try:
        browser.open(book / "02_toy.html")
        apart = """[...document.querySelectorAll('main .highlight')].filter(e => e.checkVisibility()).map(e =>
            e.querySelector('.line-of-code').getBoundingClientRect().top - e.querySelector('.copy').getBoundingClientRect().bottom)"""
        found = browser.ask(apart)
        assert found and min(found) >= 0, found
    finally:
        browser.screen(1280)


def test_without_scripts_a_phone_gets_the_text_first_and_the_contents_after_it(browser, book):
    browser.screen(390, 800)
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(book / "02_toy.html")
        top = lambda what: browser.ask(f"document.querySelector('{what}').getBoundingClientRect().top")
        assert browser.ask("document.querySelector('#side .pages').checkVisibility()") and top("main") < top("#side")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
        browser.screen(1280)


def test_without_scripts_nothing_is_shown_that_needs_one(browser, book):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(book / "sliders.html")
        shown = "['search', 'theme', 'slider-rank-input'].filter(id => document.getElementById(id).checkVisibility())"
        assert browser.ask(shown) == []
        assert browser.ask("document.querySelector('#side .pages').checkVisibility()"), "the contents stay"
        assert browser.ask("document.querySelectorAll('.copy').length") == 0
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_search_without_a_hit_says_so_and_escape_clears_it(browser, book):
    browser.open(book / "index.html")
    browser.press("/")
    browser.send("Input.insertText", text="xyzzyxyzzy")
    assert browser.ask("document.getElementById('found-count').textContent") == "0 found"
    browser.press("Escape")
    assert browser.ask("document.getElementById('search').value") == ""


def test_the_theme_follows_the_system_and_the_reader_may_turn_it(browser, book):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.ask("localStorage.clear()")
    colours = {}
    for name in ("light", "dark"):
        browser.theme(name)
        browser.open(book / "02_toy.html")
        colours[name] = browser.ask(paper)
        for element in ("body", "main a", ".highlight .k", "summary"):
            assert browser.ask(CONTRAST % element) >= 4.5, f"{name}: {element} is hard to read"
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 25, 29)"}
    browser.ask("document.getElementById('theme').click()")
    assert browser.ask(paper) == colours["light"]
    for _ in range(20):  # on a busy machine another process of the browser hears of it a moment later
        browser.open(book / "index.html")
        if browser.ask(paper) == colours["light"]:
            break
        time.sleep(0.2)
    assert browser.ask(paper) == colours["light"], "the choice holds on the next page"
    browser.ask("localStorage.clear()")
    browser.theme("light")


# WCAG's contrast of an element's text with the page, or with the nearest background that is painted.
CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const lum = (text) => rgb(text).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  let at = document.querySelector('%s');
  const ink = lum(getComputedStyle(at).color);
  while (at.parentElement && rgb(getComputedStyle(at).backgroundColor)[3] === 0) at = at.parentElement;
  const paper = lum(getComputedStyle(at).backgroundColor);
  return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
})()"""


def test_a_phone_gets_a_page_that_fits_and_a_button_for_the_contents(browser, book):
    browser.screen(390, 800)
    try:
        for page in sorted(book.glob("*.html")):
            browser.open(page)
            assert browser.ask("document.documentElement.scrollWidth") <= 390, page.name
        assert not browser.ask("document.getElementById('side').checkVisibility()")
        browser.ask("document.getElementById('menu').click()")
        assert browser.ask("document.getElementById('side').checkVisibility()")
        assert browser.ask("document.getElementById('menu').getAttribute('aria-expanded')") == "true"
    finally:
        browser.screen(1280)


def test_the_courses_tables_fit_a_laptop_and_its_pages_a_phone(browser, tmp_path_factory):
    book = course_book(tmp_path_factory.mktemp("course"))
    assert over_the_edge(browser, book) == {}, "printed"
    wide = "[...document.querySelectorAll('main .scroll')].filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)"
    for name in ("results", "paper", "claims", "timings", "instructor"):
        browser.open(book / f"{name}.html")
        assert browser.ask(f"{wide}.map(e => e.textContent.slice(0, 80))") == [], name
    browser.screen(390, 800)
    try:
        for page in sorted(book.glob("*.html")):
            browser.open(page)
            assert browser.ask("document.documentElement.scrollWidth") <= 390, page.name
            assert browser.ask(
                "[...document.querySelectorAll('pre')].every(e => e.scrollWidth <= e.clientWidth + 1)"
            ), page.name
    finally:
        browser.screen(1280)


def test_a_claims_link_leads_to_its_line_and_marks_it(browser, book):
    browser.open(book / "claims.html")
    click = "document.querySelector('main tbody a').click()"
    browser.follow(lambda: browser.ask(click), "the claim does not open")
    assert browser.ask("document.querySelector(':target').textContent") == "holds: Two is at least <one>. measured 2"
    assert browser.ask("getComputedStyle(document.querySelector(':target')).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_a_long_line_of_code_wraps_under_its_own_indentation(browser, book):
    browser.screen(390, 800)
    try:
        browser.open(book / "02_toy.html")
        left = browser.ask("""(() => { const line = [...document.querySelectorAll('.line-of-code')].at(-1);
            line.textContent = '    ' + 'word '.repeat(30);
            const range = document.createRange(); range.selectNodeContents(line);
            const rows = [...range.getClientRects()];
            return [line.getBoundingClientRect().height, rows[0].height, rows.at(-1).left - rows[0].left] })()""")
    finally:
        browser.screen(1280)
    assert left[0] > 2 * left[1] and 25 < left[2] < 45, left  # four characters


A4 = 680  # CSS pixels between the margins of a printed page


def test_print_shows_the_text_alone_unfolds_it_but_a_quiz_and_folds_it_again(browser, book):
    browser.open(book / "02_toy.html")
    browser.ask("document.querySelector('main details:not(.answer)').open = true")
    folded = "[...document.querySelectorAll('main details')].map(d => [d.className, d.open])"
    before = browser.ask(folded)
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        browser.ask("dispatchEvent(new Event('beforeprint'))")
        assert not browser.ask("document.getElementById('side').checkVisibility()")
        assert not browser.ask("document.querySelector('.copy').checkVisibility()")
        printed = browser.ask(folded)
        assert [is_open for name, is_open in printed if name != "answer"] and ["answer", False] in printed
        assert all(is_open for name, is_open in printed if name != "answer")
        browser.ask("dispatchEvent(new Event('afterprint'))")
        assert browser.ask(folded) == before
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")


# Tables, and whatever else stands in the text, that reach over the page's right edge.
WIDE = """(() => { document.querySelectorAll('main details').forEach(d => { d.open = true });
  const edge = document.querySelector('main').getBoundingClientRect().right + 1;
  return [...document.querySelectorAll('main :is(td, th, pre, img, svg)')].filter(e => e.checkVisibility() &&
    (e.getBoundingClientRect().right > edge || (e.matches('td, th, pre') && e.scrollWidth > e.clientWidth + 2)))
    .map(e => e.textContent.slice(0, 60)) })()"""


def over_the_edge(browser, book: Path) -> dict[str, list[str]]:
    browser.screen(A4)
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        found = {}
        for page in sorted(book.glob("*.html")):
            browser.open(page)
            found[page.name] = browser.ask(WIDE)
        return {name: cells for name, cells in found.items() if cells}
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
        browser.screen(1280)


def test_everything_of_a_page_is_within_the_paper(browser, book):
    assert over_the_edge(browser, book) == {}
