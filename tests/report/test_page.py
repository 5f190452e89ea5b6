import re
from html.parser import HTMLParser

import pytest

from karui.errors import UserError
from karui.report.page import highlighted, render, write_report
from karui.report.schema import load_run
from tests.support.run_folder import SCRIPT, make_run


class Elements(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    VOID = frozenset({"meta", "br", "use", "path", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.texts, self.addresses = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert not any(name.startswith("on") for name, _ in attrs), f"{tag} carries a script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def elements(page):
    parser = Elements()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "full")
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_holds_figures_tables_and_nothing_foreign(page):
    found = elements(page)
    assert found.seen.count("svg") == 3
    assert found.seen.count("table") == 2
    assert not {"script", "img", "link", "iframe", "object"} & set(found.seen)
    assert all(address.startswith("#") for address in found.addresses), "the page must stand alone"
    assert not re.search(r"url\((?!#)", page)
    text = " ".join("".join(found.texts).split())
    for said in (
        "ag_news (subset) · news",
        "seed 7",
        "195×",  # 2.61 MB / 13.4 kB
        "88.5 %",
        "words kept",
        "KL (nats, all weights)",
        "3 words, by the label they speak for",
        "fastText: not installed",
        "L1 logistic regression, int8 is more accurate with no more bytes, 89.5 % in 9.29 kB against 88.5 % in 13.4 kB",
    ):
        assert said in text, said
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    cells = [re.sub(r"<[^>]*>", " ", row).split() for row in rows]
    assert ["int8", "900", "4,133", "8,267", "100", "13,400"] in cells, "each part of a file, to the byte"


def test_text_from_data_is_escaped_everywhere(page):
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;alert(") >= 4  # bar, its tooltip, list of all words, example, settings
    assert "A <mark" in page
    assert "default-src 'none'" in page, "the browser is told to run nothing"


def test_words_stand_under_their_label_the_strongest_first(page):
    sports = page.index("<h3>Sports</h3>")
    assert page.index("<h3>Business</h3>") < page.index(">shares<") < sports
    assert sports < page.index(">&lt;script&gt;", sports) < page.index(">goal<", sports)


def test_highlighting_follows_sign_and_size():
    text = "not bad & <b>"
    shown = highlighted(text, [[0, 3, -0.5], [4, 7, 1.0]])
    assert shown == (
        '<mark style="background:rgba(var(--against),0.34)" title="-0.5">not</mark> '
        '<mark style="background:rgba(var(--for),0.60)" title="+1">bad</mark> &amp; &lt;b&gt;'
    )


@pytest.mark.parametrize("span", [[-3, 2, 1.0], [2, 2, 1.0], [3, 1, 1.0], [0, 99, 1.0]])
def test_a_span_outside_the_text_is_left_out(span):
    assert highlighted("words", [span]) == "words"


def test_overlapping_spans_do_not_nest():
    assert highlighted("abcdef", [[0, 4, 1], [2, 6, 1]]).count("<mark") == 1


def test_an_empty_run_says_which_command_makes_what(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "classification", "data": {"name": "imdb"}}')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    found = elements(page)
    assert "svg" not in found.seen
    text = "".join(found.texts)
    assert "karui train" in text
    assert text.count(f"karui compact {tmp_path} -o model.karui") == 5
    assert f"karui report {tmp_path} --baselines measures them" in text


def test_half_a_run_shows_its_half(tmp_path):
    run = make_run(tmp_path / "half")
    for name in ("compact.json", "examples.json"):
        (run / name).unlink()
    page = render(load_run(run))
    assert elements(page).seen.count("svg") == 2, "curves of the training, and of the rivals"
    (run / "metrics.jsonl").write_text("")
    (run / "baselines.json").unlink()
    assert elements(render(load_run(run))).seen.count("svg") == 0


def test_lone_surrogates_do_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / "odd")
    path = run / "compact.json"
    path.write_text(path.read_text().replace('"goal"', '"go\\ud800al"'))
    assert "go?al" in write_report(run).read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_page(tmp_path):
    run = load_run(make_run(tmp_path / "run"))
    assert render(run) == render(run)


def test_a_dense_run_takes_the_place_of_the_runs_own(tmp_path, page):
    dense = make_run(tmp_path / "dense")
    path = dense / "compact.json"
    path.write_text(path.read_text().replace("2610000", "1340000"))
    run = make_run(tmp_path / "run")
    assert "100×" in write_report(run, dense_dir=dense).read_text(encoding="utf-8")
    assert "100×" not in page


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere is no run folder; karui train"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)
    assert SCRIPT.startswith("<")
