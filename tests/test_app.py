"""The app behind its page: what visitors send, the line they stand in, the endpoint, and what Look inside shows."""

import concurrent.futures
import html
import http.client
import json
import math
import random
import shutil
import socket
import sys
import threading
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

pytest.importorskip("gradio", reason="the app needs gradio: pip install -e .[ship]")
from tiny_app import CHARS, running_app, tiny_folder

from space import app, limits, look

writer = app.writer  # the very module that the app uses


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def loaded(folder):
    app.use(str(folder))
    return writer.HELD


@pytest.fixture(scope="module")
def server(loaded):
    """The app, served from this process; yields its address."""
    demo, url = app.launch(prevent_thread_lock=True)
    yield url.rstrip("/")
    demo.close()


def call(url: str, *data, raw: str | None = None, timeout: float = 60):
    """Call /generate as any program could: POST, then read the event stream. Returns (event, value)."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    body = raw if raw is not None else json.dumps({"data": list(data)})
    connection.request("POST", "/gradio_api/call/generate", body.encode(), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        return answer.status, said.decode()
    connection.request("GET", f"/gradio_api/call/generate/{json.loads(said)['event_id']}")
    events = connection.getresponse().read().decode().strip().split("\n\n")
    connection.close()
    last = dict(line.split(": ", 1) for line in events[-1].splitlines())
    return last["event"], json.loads(last["data"])


# ---- what a visitor asks for


HOSTILE = [None, "", "a", 0, -1, 1e308, float("nan"), float("inf"), "nan", "12", "<b>", [], {}, True, 10**400, "\ud800"]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: repr(v)[:12])
def test_any_value_becomes_a_wish_within_the_limits(value):
    """Catches a field whose odd value (null, NaN, a list, 10^400) raises instead of falling back."""
    ask = limits.Ask.clean(value, value, value, value, value)
    assert isinstance(ask.prompt, str) and len(ask.prompt) <= limits.MAX_PROMPT
    assert 1 <= ask.max_tokens <= limits.MAX_TOKENS and 0 <= ask.temperature <= 1
    assert ask.top_n is None or ask.top_n >= 1
    assert 0 <= ask.seed < 2**63  # what torch's generator takes


def test_a_long_prompt_keeps_its_end_and_says_so():
    """Catches a cap that keeps the beginning (the text would go on from the wrong place) or cuts in silence."""
    ask = limits.Ask.clean("x" * 50_000 + "END")
    assert ask.prompt.endswith("END") and len(ask.prompt) == limits.MAX_PROMPT
    assert "50,003" in ask.notices[0]


def test_unknown_characters_are_listed_by_harmless_names():
    """Catches an app that raises on "é2" or repeats a control character or markup in its notice."""
    draft = writer.begin(limits.Ask.clean("caf\u00e9 2\u202e\x00\ud800#"))
    assert draft.prompt == "cafe "
    notice = draft.notices[0]
    assert "2" in notice and "right-to-left override" in notice and "U+0000" in notice and "U+D800" in notice
    assert not set(notice) & set("\u202e\x00\ud800<>&")


@pytest.mark.parametrize("prompt", ["", "ROMEO:\n", "no \x00 such \u4e16", "x" * 100])
def test_text_is_what_the_model_generates(prompt, loaded):
    """Catches a second sampler: the app's text must be model.generate's, also from nothing and past the context."""
    ask = limits.Ask.clean(prompt, 80, 0.8, 20, seed=5)
    *_, draft = writer.write(ask)
    ids = loaded.tokenizer.encode(prompt) or [loaded.start]
    B = loaded.model.config.block_size
    want = loaded.model.generate(torch.tensor([ids[-B:]]), 80, 0.8, 20, seed=5)[0, -80:]
    assert draft.ids == [*ids, *want.tolist()]
    assert draft.written == loaded.tokenizer.decode(want.tolist()) and draft.done


def test_same_seed_same_text_and_greedy_ignores_it():
    """Catches a seed that does not reach the sampler, or one that temperature 0 heeds."""
    def text(**k):
        *_, draft = writer.write(limits.Ask.clean("A", 40, **k))
        return draft.written

    assert text(seed=1) == text(seed=1) != text(seed=2)
    assert text(seed=1, temperature=0) == text(seed=2, temperature=0)


# ---- the line


def test_line_serves_in_order_and_refuses_beyond_its_length():
    """Catches a queue without bound, one that overtakes, and a slot that a leaving visitor keeps."""
    line = limits.Line(slots=1, most=2)
    a, b, c = line.join(), line.join(), line.join()
    with pytest.raises(limits.Busy):
        line.join()  # one at work, two waiting
    assert line.ready(a, 0) == 0 and line.ready(b, 0) == 1 and line.ready(c, 0) == 2
    line.leave(b)  # gave up while waiting
    assert line.ready(c, 0) == 1
    line.leave(a)
    assert line.ready(c, 0) == 0
    line.leave(c)
    assert line.running == 0 and not line.waiting


def test_line_never_runs_more_than_its_slots():
    """Catches a race that lets two visitors into one slot; 30 threads, so a false pass is unlikely."""
    line, at_work, most = limits.Line(slots=2, most=40), [0], [0]
    lock = threading.Lock()

    def visit():
        ticket = line.join()
        while line.ready(ticket, 0.01):
            pass
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.002)
        with lock:
            at_work[0] -= 1
        line.leave(ticket)

    threads = [threading.Thread(target=visit) for _ in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert most[0] == 2 and line.running == 0 and not line.waiting


def test_closing_a_generation_frees_its_slot_at_once():
    """Catches a generation that goes on for a visitor who left."""
    writing = writer.write(limits.Ask.clean("A", 1000))
    next(writing)
    assert writer.LINE.running == 1
    writing.close()
    assert writer.LINE.running == 0 and not writer.LINE.waiting


def test_error_while_sampling_frees_the_slot(monkeypatch):
    """Catches a slot lost for ever at the first exception; after as many as there are cores the app would be dead."""
    def broken(*_):
        raise RuntimeError("no")
        yield

    monkeypatch.setattr(writer, "sample", broken)
    with pytest.raises(RuntimeError):
        list(writer.write(limits.Ask.clean("A")))
    assert writer.LINE.running == 0


# ---- HTML


class Reader(HTMLParser):
    """Collects tags and text as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


NASTY = ["<script>alert(1)</script>", "${alert(1)}", "{{constructor}}", "`x`", '"><img src=x onerror=y>', "&lt;b&gt;"]


@pytest.mark.parametrize("text", NASTY)
def test_everything_on_the_page_is_escaped(text):
    """Catches a renderer that lets a visitor's text become markup or a template of Gradio's HTML component."""
    pieces = list(text) + [text]
    made = [
        look.manuscript(text, text, True),
        look.status_line([text], [text]),
        look.surprise_text(text, pieces, [1.0] * len(pieces), pieces, 0, 1),
        look.guess_bars(text, text, [(text, 0.5, 0.1)], 0.5, 0.1),
        look.attention_text(pieces, [0.5] * len(pieces), 1, 1),
    ]
    allowed = {"div", "span", "p", "q", "b", "h3", "table", "thead", "tbody", "tr", "th", "td", "small", "i"}
    for page in made:
        assert {tag for tag, _ in Reader(page).tags} <= allowed
        assert not any(name.startswith("on") or name == "src" for _, attrs in Reader(page).tags for name in attrs)
        for wild in ("{{", "${", "`"):
            assert wild not in page
    assert text in Reader(made[0]).text  # and it is still readable


def test_lone_surrogate_can_be_drawn():
    """Catches HTML that cannot be encoded, which would end the connection with a 500."""
    look.manuscript("\ud800", "\udfff", False).encode("utf-8")


# ---- look inside


@pytest.mark.parametrize("n_prompt", [1, 2, 31, 32, 33, 70])
def test_look_inside_shows_what_sampling_saw(loaded, n_prompt, monkeypatch):
    """Catches a Look inside that forgets what lay before its window: at each written place, the very ids that stream
    gave to the model; every place once, and never fewer than half a context where there are more.
    """
    B, seen = loaded.model.config.block_size, []
    hidden = loaded.model.hidden
    monkeypatch.setattr(loaded.model, "hidden", lambda idx, *more: seen.append(idx[0].tolist()) or hidden(idx, *more))
    prompt = [i % 60 for i in range(n_prompt)]
    new = loaded.model.generate(torch.tensor([prompt[-B:]]), 100, seed=1, use_cache=False)[0, -100:]
    ids = [*prompt, *new.tolist()]
    places = []
    for start, first, end in writer.spans(len(ids), n_prompt, B):
        for place in range(first, end):
            places.append(place)
            assert min(place, max(1, B // 2)) <= place - start <= B
            if place >= n_prompt:
                assert ids[start:place] == seen[place - n_prompt]
    assert places == list(range(1, len(ids)))


def test_look_inside_tells_the_models_own_numbers(loaded):
    """Catches losses or bars shifted by one place: they must be the model's log-probabilities at that character."""
    ids = loaded.tokenizer.encode("ROMEO:\nWhy so sad?")
    logp = loaded.model(torch.tensor([ids]))[0].log_softmax(-1)[0]
    want = [-logp[t - 1, ids[t]].item() for t in range(1, len(ids))]
    for low in (1, 5):
        seen = writer.inspect(ids, 7, 7, low)
        assert seen["losses"] == pytest.approx(want[low - 1 :], abs=1e-4)
        assert -math.log(seen["probs"][ids[7]]) == pytest.approx(want[6], abs=1e-4)
    assert seen["probs"].sum().item() == pytest.approx(1, abs=1e-4)
    assert [len(layer) for layer in seen["heads"]] == [2, 2]
    assert all(len(w) == 7 and sum(w) == pytest.approx(1, abs=1e-4) for layer in seen["heads"] for w in layer)
    assert writer.inspect(ids, 7, None, 1)["at"] == 7 + max(range(len(ids) - 7), key=lambda i: want[6 + i])


def test_five_gram_stands_beside_the_model(loaded):
    """Catches a table asked about the wrong place, or left out although the folder has one."""
    ids = loaded.tokenizer.encode("ROMEO:\nWhy")
    _, bars, _, at, _ = writer.view(ids, 7, 8, 1, 1)
    assert at == 8
    said = look.percent(float(loaded.table.next_probs(ids[:8])[ids[8]]))
    assert f"the 5-gram {said}." in Reader(bars).text


@pytest.mark.parametrize("at, layer, head", [(None, 0, 0), (-5, 99, 99), (1e9, "x", None), ("NaN", -1, 2)])
def test_look_inside_takes_any_position(at, layer, head):
    """Catches a slider or a click beyond the text that raises."""
    text, bars, attention, at, low = writer.view([3, 4, 5, 6], 2, at, layer, head)
    assert low == 1 <= at <= 3 and " at" in text and "<table" in bars and "mini" in attention


@pytest.mark.parametrize("sent", [None, [], [3], [1, 5], {}, "x", [[1], {}], [9, -1, 10**9, 5], [True, 1.5, None, 2]])
def test_look_inside_without_a_text(sent):
    """Catches an empty page that raises when its slider is touched, and ids that a hostile browser sends back."""
    _, bars, *_ = app.on_look(sent, 1, 1, 1)
    assert "Write something first" in bars


@pytest.mark.parametrize("n_prompt", [0, -7, 10**12])
def test_look_inside_with_a_hostile_boundary(n_prompt):
    """Catches a place of the seed's end, sent back by the browser, that leads out of the text."""
    words, *_ = app.on_look([n_prompt, *range(50)], None, 1, 1)
    assert words.count("data-at=") == 50


@pytest.mark.parametrize("n_prompt, length", [(990, 1000), (5, 700), (33, 40)])
def test_look_inside_at_a_text_longer_than_its_window(loaded, n_prompt, length):
    """Catches a boundary between seed and written text that stands mid-text, and places beyond the last ones."""
    B, ids = loaded.model.config.block_size, [2] * n_prompt + [3] * (length - n_prompt)
    draft = writer.Draft("", ids, n_prompt)
    *_, sent, stop = app.page_of(draft, limits.Ask.clean("A"), False)
    words, _, _, slider = app.on_look(sent, None, 1, 1)
    kept = min(n_prompt, B) + length - n_prompt
    shown = min(kept, writer.WINDOW)
    assert words.count("data-at=") == shown and slider.maximum == kept - 1
    assert (" begin" in words) == (length - n_prompt < writer.WINDOW)  # never at a place where it did not begin
    assert ("…" in words) == (n_prompt >= B)


def test_page_opens_with_a_finished_text(loaded):
    """Catches an empty box at first sight, parts that belong to nothing, and examples of another text than its own."""
    page = app.build_app().config["components"]
    values = {part["props"].get("elem_id"): part["props"].get("value") for part in page}
    assert values["paper"].count('class="ch') > 50 and "<table" in values["bars"]
    assert [part["props"]["value"] for part in page if part["type"] == "button"] == ["Generate", "Stop"]
    assert values["prompt"] == "" and "ROMEO" not in str([p for p in page if p["type"] == "dataset"])


# ---- the endpoint


def test_generate_is_documented_and_the_only_public_endpoint(server):
    """Catches an endpoint without a description, and page events that leak into the public interface."""
    from gradio_client import Client

    client = Client(server, verbose=False)
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/generate"}
    assert [p["parameter_name"] for p in named["/generate"]["parameters"]] == [
        "prompt", "max_tokens", "temperature", "top_n", "seed"]  # fmt: skip
    assert "max_tokens: 1 to" in named["/generate"]["description"]
    said = client.predict(prompt="ROMEO:\n", max_tokens=30, seed=3, api_name="/generate")
    again = client.predict(prompt="ROMEO:\n", max_tokens=30, seed=3, api_name="/generate")
    assert said["text"] == again["text"] and len(said["text"]) == 30 and said["seed"] == 3
    client.close()


def test_generate_streams(server):
    """Catches an endpoint that sends everything at the end: a large model would seem dead for a minute."""
    from gradio_client import Client

    client = Client(server, verbose=False)
    job = client.submit(prompt="A", max_tokens=1000, api_name="/generate")
    texts = [part["text"] for part in job]
    client.close()
    assert len(texts) > 2 and all(b.startswith(a) for a, b in zip(texts, texts[1:], strict=False))


def hostile_prompts(n: int, seed: int = 0) -> list:
    """Strings made to break something, drawn with a seed."""
    rng = random.Random(seed)
    pools = [
        [chr(i) for i in range(32)] + ["\x7f", "\x85"],
        list("\u200b\u200e\u200f\u202a\u202b\u202d\u202e\u2066\u2067\u2069\ufeff\u061c"),
        ["<script>", "</div>", "<img src=x onerror=alert(1)>", "<!--", "]]>", "&amp;", "&#x27;", "{{7*7}}", "${x}"],
        ["../../etc/passwd", "%00", "%s%n", "'; DROP TABLE x;--", "\\", "\\u0000", "null", "NaN", "\r\n\r\n", "data: "],
        ["\U0001f600", "e\u0301" * 3, "\u4e16", "\u0e01", "\U00010000", "\uffff", "\ufdd0", "\u0300"],
        list(CHARS),
    ]
    made = ["".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(0, 60))) for _ in range(n - 5)]
    return [*made, "x" * 2**17, "\u202e" * 2**15, "<b>" * 30_000, None, ""]


def test_two_thousand_hostile_prompts(server):
    """Catches any prompt that ends in an error, loses an answer, or comes back as markup or control characters."""
    prompts = hostile_prompts(2000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda p: call(server, p, 2, 0.7, None, 1), prompts))
    for prompt, (event, value) in zip(prompts, answers, strict=True):
        assert event == "complete", (prompt and prompt[:60], event, value)
        said = value[0]
        assert set(said["text"]) <= set(CHARS) and set(said["prompt"]) <= set(CHARS)
        for notice in said["notices"]:
            assert notice == html.escape(notice, quote=False) and notice.isprintable(), notice
    page = look.manuscript(answers[0][1][0]["prompt"], answers[0][1][0]["text"], False)
    assert {tag for tag, _ in Reader(page).tags} <= {"div", "span"}


def test_lone_surrogates_by_raw_http(server):
    """Catches a 500 for JSON that the usual client refuses to send: half a surrogate pair."""
    event, value = call(server, raw='{"data": ["a\\ud800b\\udfff", 3, 0.7, null, 1]}')
    assert event == "complete" and value[0]["prompt"] == "ab"
    assert "U+D800" in value[0]["notices"][0]


NONSENSE = ['{"data": []}', '{"data": [[], {}, "x", [1], "y"]}', '{"data": null}', "{", '{"data": [1, 2]}']


@pytest.mark.parametrize("raw", NONSENSE)
def test_malformed_requests_get_an_answer_without_inside_knowledge(server, raw):
    """Catches a traceback, a path of this machine or a hanging connection as the answer to nonsense."""
    event, value = call(server, raw=raw, timeout=20)
    said = json.dumps(value)
    assert event in ("complete", "error") or event in (400, 422, 500)
    assert "Traceback" not in said and str(Path(app.__file__).parent) not in said and "site-packages" not in said


def test_no_inside_knowledge_reaches_a_visitor_when_the_app_breaks(server, monkeypatch):
    """Catches show_error: an exception's text (paths, tokens) in the answer."""
    def broken(*_):
        raise RuntimeError("/secret/path hf_secret")

    monkeypatch.setattr(writer, "begin", broken)
    event, value = call(server, "A", 3)
    assert event == "error" and "secret" not in json.dumps(value)


def test_twenty_visitors_at_once_are_served_or_told(server):
    """Catches a lost visitor, a dead thread pool, and a busy answer that is no sentence."""
    def visit(i):
        return call(server, "ROMEO:", 60, 0.7, None, i)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        twenty = list(pool.map(visit, range(20)))
    assert [event for event, _ in twenty] == ["complete"] * 20  # twenty fit into the line
    assert all(len(value[0]["text"]) == 60 for _, value in twenty)
    assert writer.LINE.running == 0 and not writer.LINE.waiting


def test_more_visitors_than_the_line_holds(server, monkeypatch):
    """Catches an unbounded queue: with room for two, the others must read "Busy" and none may wait for ever."""
    monkeypatch.setattr(writer, "LINE", limits.Line(slots=1, most=2))
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: call(server, "A", 400, 0.7, None, i), range(20)))
    events = [event for event, _ in answers]
    assert len(answers) == 20 and set(events) <= {"complete", "error"} and events.count("complete") >= 3
    assert "error" in events
    for event, value in answers:
        if event == "error":
            assert "Busy" in json.dumps(value)
    assert writer.LINE.running == 0 and not writer.LINE.waiting


def test_a_visitor_who_leaves_stops_his_generation(server, monkeypatch):
    """Catches work that goes on after the connection is gone: the slot must be free long before the text is done."""
    made = []

    def slow(ids, ask):
        for i in range(2000):
            time.sleep(0.02)
            made.append(i)
            yield 5

    monkeypatch.setattr(writer, "sample", slow)
    place = urlsplit(server)
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("POST", "/gradio_api/call/generate", json.dumps({"data": ["A", 1000, 0.7, None, 1]}),
                       {"Content-Type": "application/json"})  # fmt: skip
    event = json.loads(connection.getresponse().read())["event_id"]
    connection.request("GET", f"/gradio_api/call/generate/{event}")
    connection.getresponse().read(10)
    assert writer.LINE.running == 1
    connection.close()
    deadline = time.monotonic() + 15
    while writer.LINE.running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert writer.LINE.running == 0, f"still at work after {len(made)} characters"
    assert len(made) < 1000


# ---- what this app never needs


def post(url: str, path: str, body: bytes, kind="application/json", **headers):
    """(status, answer) of one POST."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind, **headers})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n%b\r\n--x--'
FILE = {"path": "http://127.0.0.1/x", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("path, body, kind", [
    ("/gradio_api/upload", FORM % (b"x" * 10**6), "multipart/form-data; boundary=x"),
    ("/gradio_api/upload/?upload_id=a", FORM % b"x", "multipart/form-data; boundary=x"),
    ("/gradio_api/call/generate", json.dumps({"data": ["x" * 300_000]}).encode(), "application/json"),
    ("/gradio_api/queue/join", b"[" * 250_000, "application/json"),
])  # fmt: skip
def test_uploads_and_long_bodies_are_refused(server, path, body, kind):
    """Catches 50 MB of a stranger on the disk, and a prompt of 100 MB in memory."""
    status, said = post(server, path, body, kind)
    assert status == 413 and "This app takes no files" in said or "at most 200,000" in said


@pytest.mark.parametrize("value", [[FILE], [[{"a": [FILE]}]], [{"path": "/etc/passwd"}]])
def test_a_value_that_names_a_file_is_refused(server, value):
    """Catches a value that sends Gradio's downloader to an address of the visitor's choice."""
    for path in ("/gradio_api/call/generate", "/gradio_api/queue/join"):
        body = {"data": value, "fn_index": 0, "session_hash": "s"}
        assert post(server, path, json.dumps(body).encode())[0] == 400
    assert post(server, "/gradio_api/call/generate", b'{"data": ' + b"[" * 90_000)[0] == 400


def test_requests_that_nobody_reads_leave_room_for_the_next_visitor(server, monkeypatch):
    """Catches thirty abandoned requests that fill the line: the next visitor must be served, not told "Busy"."""
    monkeypatch.setattr(writer, "LINE", limits.Line(slots=1, most=2))
    ask = json.dumps({"data": ["A", 1000, 0.7, None, 1]}).encode()
    assert all(post(server, "/gradio_api/call/generate", ask)[0] == 200 for _ in range(30))
    event, value = call(server, "A", 5, 0.7, None, 1)
    assert event == "complete" and len(value[0]["text"]) == 5


def test_a_visitor_holds_two_places_and_an_address_eight():
    """Catches one visitor who takes the whole line, and a place that is not given back."""
    line = limits.Line(slots=2, most=20)
    tickets = [line.join("page", "192.0.2.1") for _ in range(2)]
    with pytest.raises(limits.Busy, match="your texts"):
        line.join("page", "198.51.100.1")
    tickets += [line.join(f"p{i}", "192.0.2.1") for i in range(6)]
    with pytest.raises(limits.Busy, match="your texts"):
        line.join("p9", "192.0.2.1")
    for ticket in tickets:
        line.leave(ticket)
    assert not line.held or not any(line.held.values())
    line.join("page", "192.0.2.1")


def test_nothing_is_shared_or_shown_beside_the_page(server, loaded, monkeypatch):
    """Catches the page of statistics that Gradio opens to all, and a tunnel that nobody asked for."""
    with pytest.raises(OSError, match="HTTP Error"):
        urllib.request.urlopen(f"{server}/monitoring")
    options = {}
    monkeypatch.setattr("gradio.Blocks.launch", lambda self, **k: options.update(k) or (None, "address", None))
    app.launch()
    assert options["share"] is False and options["enable_monitoring"] is False and options["max_file_size"]


# ---- starting


@pytest.mark.parametrize("port, words", [("99999", "no port 99999"), ("0", "no port 0"), ("taken", "is taken")])
def test_a_port_that_cannot_be_had_is_one_sentence(folder, capsys, port, words):
    """Catches a traceback of uvicorn's for a port that is taken or none."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = str(other.getsockname()[1]) if port == "taken" else port
        assert app.main(["--model", str(folder), "--port", number]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_proxy_of_the_network_is_not_asked_for_this_machine(folder):
    """Catches an app that does not start, and a Client that waits, where http_proxy names a proxy."""
    proxy = {name: "http://127.0.0.1:9" for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy")}
    with running_app("--model", folder, no_proxy="", NO_PROXY="", **proxy) as url:
        assert call(url, "A", 3, 0.7, None, 1)[0] == "complete"


def nested(depth):
    return '{"model": ' + "[" * depth + "]" * depth + "}"


def spoil(folder, name, change):
    """Change one file of a model folder."""
    if callable(change):
        return change(folder)
    if isinstance(change, dict):
        change = json.dumps({**json.loads((folder / name).read_text()), **change})
    (folder / name).write_text(change)


def no_numbers(folder):
    from model_gpt2 import GPT

    model = GPT.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(folder)


def other_table(folder, size=7, **of):
    from data.ngram import NGram

    NGram(5, size).fit(torch.randint(size, (500,)).numpy()).save(folder / "ngram5.npz", **of)


SPOILED = [("metrics.json", nested(10**5), "metrics.json"), ("metrics.json", "[1]", "metrics.json"),
           ("tokenizer.json", nested(10**5), "tokenizer.json"), ("", no_numbers, "hold NaN"),
           ("", other_table, "another text"),
           ("", lambda folder: other_table(folder, len(CHARS), corpus_sha256="cd" * 32), "another text"),
           ("generation_config.json", nested(10**5), "generation_config.json")]  # fmt: skip


@pytest.mark.parametrize("name, change, words", SPOILED, ids=range(len(SPOILED)))
def test_a_hostile_or_broken_folder_is_one_sentence(folder, tmp_path, capsys, name, change, words):
    """Catches a traceback at start, and an app that shows "0 tokens" for ever because its weights are NaN."""
    shutil.copytree(folder, tmp_path / "m")
    spoil(tmp_path / "m", name, change)
    assert app.main(["--model", str(tmp_path / "m")]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize("change", [
    {"corpus": "a string"}, {"val_loss": "low", "val_loss_char": None, "parameters": []}, {"machine": 7, "config": "x"},
    {"corpus": {"name": ["x"], "examples": "no list", "speakers": [1, {}]}}, {"val_loss": float("nan")},
])  # fmt: skip
def test_odd_numbers_are_left_out(folder, tmp_path, change):
    """Catches a page or a card that needs every value of metrics.json to be what the trainer writes."""
    shutil.copytree(folder, tmp_path / "m")
    spoil(tmp_path / "m", "metrics.json", change)
    held = writer.Loaded.from_folder(str(tmp_path / "m"))
    assert "million parameters" in look.headline(held.card) and "nan" not in look.headline(held.card)
    from space import card

    text = card.card(card.read_facts(tmp_path / "m"), "me/m", None, "x")
    assert "None nats" not in text and "nan nats" not in text


@pytest.mark.parametrize("name, words", [("", "config.json"), ("nobody/nothing-here", "No model at nobody")])
def test_a_model_that_cannot_be_had_is_one_sentence(name, words, tmp_path, capsys):
    """Catches a traceback at start-up for a wrong --model."""
    assert app.main(["--model", name or str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and said.count("\n") == 1


def test_default_model_is_the_one_beside_the_app_or_the_one_that_is_named(tmp_path, monkeypatch):
    """Catches a Space that ignores its model.json."""
    monkeypatch.setattr(app, "HERE", tmp_path)
    assert app.default_model() == (str(tmp_path / "model"), None)
    (tmp_path / "model.json").write_text('{"model": "me/mine", "revision": "abc"}')
    assert app.default_model() == ("me/mine", "abc")


def test_a_folder_without_table_and_metrics_still_serves(folder, tmp_path):
    """Catches an app that needs the optional files: any GPT-2 folder with a tokenizer must do."""
    shutil.copytree(folder, tmp_path / "m", ignore=shutil.ignore_patterns("ngram5.npz", "metrics.json"))
    held = writer.Loaded.from_folder(str(tmp_path / "m"))
    assert held.table is None and set(held.card) == {"parameters"}
    assert "million parameters" in look.headline(held.card)


def test_spaces_is_imported_before_torch_and_wraps_both_functions(folder, tmp_path):
    """Catches the import order that ZeroGPU refuses, and a function that would run without its card."""
    import subprocess

    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules, 'torch came first'\nwrapped = []\n"
        "def GPU(duration):\n    def wrap(f):\n        wrapped.append(f.__name__)\n        return f\n    return wrap\n"
    )
    code = "import sys; sys.path[:0] = sys.argv[1:]; import spaces; from space import app; print(spaces.wrapped)"
    root = str(Path(app.__file__).resolve().parents[1])
    command = [sys.executable, "-c", code, str(tmp_path), root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['sample', 'inspect']", done.stderr[-800:]
