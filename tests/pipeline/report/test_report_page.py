"""The report in a real browser: nothing is fetched, nothing of the corpus runs, and it can be used without a mouse."""

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import report_workspace as made
from helpers.report_workspace import HOSTILE, fill
from helpers.shards_corpus import samples
from helpers.support import jpeg

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.comparison.plots import RUN_COLORS
from rhostream.pipeline.report.data import ReportData
from rhostream.pipeline.report.page import write_report
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql.database import query
from rhostream.plain_text import visible

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NOT TESTED in a browser: there is no Chromium (`make browser` installs Debian's, as root)"
)


def until(page, condition):
    """Wait for a condition, asked from outside: the page's policy lets Playwright evaluate no text inside of it."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("page") / "w", truth=True)


@pytest.fixture(scope="module")
def report(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportData]:
    file = tmp_path_factory.mktemp("page") / "report.html"
    return file, write_report(workspace, str(file))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, which root cannot have.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield chromium
        chromium.close()


class Opened:
    """The report in a browser of its own, and what happened there."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def visible(self) -> list[str]:
        """The keys of the pictures that are shown, in order."""
        keys: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.card:not([hidden])')].map((card) => card.dataset.key)"
        )
        return keys


@pytest.fixture
def opened(browser: Any, report: tuple[Path, ReportData]) -> Iterator[Opened]:
    shown = Opened(browser, report[0])
    yield shown
    assert shown.said == []
    shown.context.close()


def cards(report: tuple[Path, ReportData]) -> list[dict[str, Any]]:
    return [row for gallery in report[1].galleries.values() for row in gallery.rows]


def test_the_page_loads_alone_and_shows_every_picture(opened: Opened, report: tuple[Path, ReportData]) -> None:
    assert [url for url in opened.requests if not url.startswith("data:")] == [report[0].as_uri()]
    opened.page.evaluate("document.querySelectorAll('.card').forEach((card) => card.hidden = false)")
    until(opened.page, "[...document.images].every((image) => image.complete)")
    sizes = opened.page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert sizes == [8] * len(cards(report))
    policy = opened.page.get_attribute("meta[http-equiv='Content-Security-Policy']", "content")
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_a_hostile_class_name_stays_text(opened: Opened) -> None:
    page = opened.page
    assert page.evaluate("document.scripts.length") == 1
    names = page.evaluate("[...document.querySelectorAll('#by-class option')].map((option) => option.value)")
    assert visible(HOSTILE) in names
    given = page.evaluate("[...document.querySelectorAll('.given')].map((element) => element.textContent)")
    assert visible(HOSTILE) in given
    labels = page.evaluate("[...document.querySelectorAll('svg text')].map((text) => text.textContent)")
    assert any(label.startswith("</script><script>a") for label in labels)
    assert page.evaluate("document.querySelector('img[src=x]')") is None
    page.locator("#rejects summary").first.click()
    assert "<img src=x onerror=alert(1)>" in page.inner_text("#rejects")


def test_filters_show_what_fits_and_say_how_many(opened: Opened, report: tuple[Path, ReportData]) -> None:
    page, rows = opened.page, cards(report)
    first = opened.visible()
    assert len(first) < len(rows)
    page.select_option("#by-class", visible(HOSTILE))
    fits = [row["key"] for row in rows if row["classes"] == [HOSTILE]]
    assert opened.visible() == fits
    assert page.inner_text("#shown") == f"{len(fits)} of {len(rows)} pictures"
    page.select_option("#by-reason", "redundant")
    both = [row["key"] for row in rows if row["classes"] == [HOSTILE] and row["reason"] == "redundant"]
    assert opened.visible() == both
    assert 0 < len(both) < len(fits)
    assert page.locator("#most_selected .none").is_visible()
    page.click("button[type=reset]")
    until(page, "document.getElementById('by-class').value === ''")
    until(page, f"document.getElementById('shown').textContent.startsWith('{len(first)} of')")
    assert opened.visible() == first


def test_search_finds_keys_classes_and_sources(opened: Opened, report: tuple[Path, ReportData]) -> None:
    page, rows, first = opened.page, cards(report), opened.visible()
    page.fill("#search", "S11")
    assert opened.visible() == [row["key"] for row in rows if row["key"] == "s11"] != []
    page.fill("#search", "11.png redundant")
    assert opened.visible() == [row["key"] for row in rows if row["key"] == "s11"]
    page.fill("#search", "11.png mislabeled")
    assert opened.visible() == []
    page.fill("#search", "dress")
    assert {row["key"] for row in rows if row["classes"] == ["dress"]} <= set(opened.visible())
    page.select_option("#by-class", "dress")
    assert opened.visible() == [row["key"] for row in rows if row["classes"] == ["dress"]]
    page.fill("#search", "no such thing")
    assert opened.visible() == []
    assert "rho query" in page.inner_text("#elsewhere")
    page.click("button[type=reset]")
    until(page, "document.getElementById('search').value === ''")
    until(page, "document.getElementById('elsewhere').hidden")
    assert opened.visible() == first


def test_a_picture_opens_larger_with_all_that_is_known(opened: Opened, report: tuple[Path, ReportData]) -> None:
    page, rows = opened.page, report[1].galleries["suspicious"].rows
    page.locator("#suspicious .open").first.click()
    assert page.inner_text("#larger-title") == rows[0]["key"] == "s50"
    until(page, "document.querySelector('#larger img').complete")
    width = page.evaluate("document.querySelector('#larger img').getBoundingClientRect().width")
    assert width == 512  # of 8 pixels, and on the card of a hundred
    told = page.inner_text("#larger dl")
    assert "50.png" in told
    assert re.search(r"strided_cnn says\n.*% sure; it predicts \d+% of the labels", told)
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#larger-title") == rows[1]["key"]
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('larger').open")
    assert page.evaluate("document.activeElement.closest('.card').dataset.key") == rows[1]["key"]


def test_tags_become_a_clean_list_that_shards_apply(browser: Any, tmp_path: Path) -> None:
    classes = ("=cat", 'a "dog", b', "bird")
    pets = [(f"-pet{number}", jpeg(number), classes[number % 3]) for number in range(30)]
    workspace = Workspace(tmp_path / "w")
    write_shards(workspace, samples=pets, classes=classes, holdout=0.3, workers=0)
    made.write_scores(workspace, mislabeled=(0, 2, 4, 6, 8))
    write_report(workspace, str(tmp_path / "report.html"))
    shown = Opened(browser, tmp_path / "report.html")
    page = shown.page
    keys = page.evaluate("[...document.querySelectorAll('#suspicious .card')].map((card) => card.dataset.key)")[:4]
    given = {name: label for name, _, label in pets}
    guess = classes[(classes.index(given[keys[1]]) + 1) % 3]
    other = classes[(classes.index(given[keys[2]]) + 2) % 3]
    page.select_option(f".card[data-key='{keys[0]}'] .tag", "drop")
    page.select_option(f".card[data-key='{keys[1]}'] .tag", f"relabel {guess}")
    page.locator(f".card[data-key='{keys[2]}'] .open").click()
    page.select_option("#larger-tag", f"relabel {other}")
    page.keyboard.press("Escape")
    page.select_option(f".card[data-key='{keys[3]}'] .tag", "keep")
    page.reload()
    assert page.inner_text("#tags") == "4 samples tagged"
    page.check("#only-tagged")
    assert shown.visible() == keys
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "clean.csv")
    shown.context.close()
    assert shown.said == []
    write_shards(
        tmp_path / "c", samples=pets, classes=classes, holdout=0.3, workers=0, clean_list=str(tmp_path / "clean.csv")
    )
    found = {row["source"]: row["class"] for row in samples(tmp_path / "c")}
    expected = given | {keys[1]: guess, keys[2]: other}
    del expected[keys[0]]
    assert found == expected


def test_runs_have_the_colors_of_the_comparisons(opened: Opened) -> None:
    style = "getComputedStyle(document.documentElement)"
    found = [opened.page.evaluate(f"{style}.getPropertyValue('--series{place}')") for place in range(len(RUN_COLORS))]
    assert tuple(color.strip() for color in found) == RUN_COLORS


def test_a_gallery_unfolds_and_folds_again(opened: Opened, report: tuple[Path, ReportData]) -> None:
    page, before = opened.page, opened.visible()
    more = page.locator("#never_selected .more")
    more.click()
    assert len(opened.visible()) == len(before) - 14 + len(report[1].galleries["never_selected"].rows)
    assert more.get_attribute("aria-expanded") == "true"
    more.click()
    assert opened.visible() == before


def test_it_is_used_by_keyboard_alone(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the summary"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.className || document.activeElement.id"))
        if seen[-1] == "pick":
            break
    assert seen[-1] == "pick"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    name = page.evaluate("document.activeElement.dataset.class")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "pictures-title"
    assert page.evaluate("document.getElementById('by-class').value") == name
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "by-class"
    page.keyboard.press("Tab")
    page.keyboard.type("mislabeled")
    assert page.evaluate("document.getElementById('by-reason').value") == "mislabeled"


def test_copy_buttons_give_the_key_and_sql_that_is_answered(
    browser: Any, report: tuple[Path, ReportData], workspace: Workspace
) -> None:
    shown = Opened(browser, report[0], permissions=["clipboard-read", "clipboard-write"])
    page = shown.page

    def copied() -> str:
        until(page, "document.getElementById('said').textContent !== ''")
        text: str = page.evaluate("navigator.clipboard.readText()")
        page.evaluate("document.getElementById('said').textContent = ''")
        return text

    corpus = page.locator("#suspicious .card").first
    corpus.locator("[data-copy=key]").click()
    assert copied() == "s50"
    corpus.locator("[data-copy=sample]").focus()
    page.keyboard.press("Enter")
    rows = query(workspace, copied()).to_pylist()
    assert {row["source"] for row in rows} == {"50.png"}
    assert len(rows) == 2 * made.EPOCHS
    page.locator("#map .sql summary").click()
    page.locator("#map .sql .copy").click()
    assert query(workspace, copied()).to_pylist() == report[1].answers["map"].rows
    shown.context.close()
    assert shown.said == []


_CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const texts = "h1, h2, h3, p, li, a, button, select, dt, dd, th, td, summary, svg text, output, pre";
  return [...document.querySelectorAll(texts)]
    .filter((e) => e.textContent.trim())
    .map((e) => {
      const style = getComputedStyle(e);
      const [a, b] = [light(parse(e.closest("svg") ? style.fill : style.color)), light(ground(e))];
      const name = e.tagName + "." + (e.className.baseVal ?? e.className);
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), name];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser: Any, report: tuple[Path, ReportData], scheme: str) -> None:
    shown = Opened(browser, report[0], color_scheme=scheme)
    found = shown.page.evaluate(_CONTRAST)
    ground = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    shown.context.close()
    assert len(found) > 300
    assert [(contrast, what) for contrast, what in found if contrast < 4.5] == []
    assert (ground == "rgb(244, 246, 248)") == (scheme == "light")


def test_nothing_is_cut_off_on_a_phone(browser: Any, report: tuple[Path, ReportData]) -> None:
    shown = Opened(browser, report[0], viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = shown.page
    page.evaluate("document.querySelectorAll('details').forEach((details) => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate("""[...document.querySelectorAll("button, select")].filter((e) => e.offsetParent)
        .map((e) => e.getBoundingClientRect()).filter((box) => box.height < 24 || box.width < 24).length""")
    assert small == 0
    shown.context.close()
    assert shown.said == []


def test_a_screen_reader_finds_headings_landmarks_names_and_tables(opened: Opened) -> None:
    page = opened.page
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((heading) => Number(heading.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() >= 1, landmark
    assert page.evaluate("document.documentElement.lang") == "en"
    nameless = """[...document.querySelectorAll("button, select, summary, img, svg[role=img], [role=region]")]
        .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("alt") || e.textContent.trim() ||
                         e.labels?.length)).length"""
    assert page.evaluate(nameless) == 0
    assert page.evaluate("[...document.querySelectorAll('figure')].every((f) => f.querySelector('table tbody tr'))")
    assert page.evaluate("[...document.querySelectorAll('figure')].length") == 8
    ids = page.evaluate("[...document.querySelectorAll('body [id]')].filter((e) => !e.closest('svg')).map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert page.get_attribute("#shown", "aria-live") == "polite"
