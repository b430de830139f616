"""The app behind its page: what visitors send, their line, the endpoint, what Look inside shows."""

import http.client
import json
import math
import os
import shutil
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from bs4 import BeautifulSoup

pytest.importorskip("gradio", reason="the app needs gradio: pip install -e .[ship]")
from gradio_client import Client
from tiny_app import CHARS, tiny_folder

from space import app, card, guard, limits, look

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
    """The app, served from this process; yields its address. The environment names a proxy of the network:
    who asks it for this machine gets no answer, so that the app must not.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):
            patch.delenv(name)
        patch.setenv("all_proxy", os.environ["http_proxy"])
        demo, url = app.launch(prevent_thread_lock=True)
        yield url.rstrip("/")
        demo.close()


def request(url: str, method: str, path: str, body: str | bytes = b"", kind="application/json", timeout=60):
    """(status, answer) of one request."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    body = body if isinstance(body, bytes) else body.encode()
    connection.request(method, path, body or None, {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


CALL = "/gradio_api/call/generate"


def call(url: str, *data, raw: str | None = None):
    """Call /generate as any program could: POST, then read the event stream. Returns (event, value)."""
    status, said = request(url, "POST", CALL, raw if raw is not None else json.dumps({"data": list(data)}))
    if status != 200:
        return status, said
    _, events = request(url, "GET", f"{CALL}/{json.loads(said)['event_id']}")
    last = dict(line.split(": ", 1) for line in events.strip().split("\n\n")[-1].splitlines())
    return last["event"], json.loads(last["data"])


def crowd(url, asks, visitors):
    with ThreadPoolExecutor(visitors) as pool:
        return list(pool.map(lambda ask: call(url, *ask), asks))


def idle():
    return not writer.QUEUE.tickets


# ---- what a visitor asks for


ODD = [None, "", "a", 0, -1, 1e308, float("nan"), float("inf"), "nan", "12", "<b>", [], {}, True, 10**400,
       "\ud800"]


@pytest.mark.parametrize("value", ODD, ids=lambda v: repr(v)[:12])
def test_any_value_becomes_a_wish_within_the_limits(value):
    """Catches a field whose odd value (null, NaN, a list, 10^400) raises instead of falling back."""
    ask = limits.Ask.clean(value, value, value, value, value)
    assert isinstance(ask.prompt, str) and len(ask.prompt) <= limits.MAX_PROMPT
    assert 1 <= ask.max_tokens <= limits.MAX_TOKENS and 0 <= ask.temperature <= 1
    assert ask.top_n is None or ask.top_n >= 1
    assert 0 <= ask.seed < 2**63  # what torch's generator takes


@pytest.mark.parametrize("asked, words", [
    ({"prompt": "x" * 50_000 + "END"}, "cut to its last 10,000 of 50,003"),
    ({"max_tokens": 2000}, "At most 1,000"),
    ({"max_tokens": "1e4"}, "At most 1,000"),
    *(({"top_n": bad}, "Top N is to be") for bad in ("ten", "-3", "4 5")),
    *(({"seed": bad}, "Seed is to be") for bad in ("one", "1,000", "0x10")),
    *(({"prompt": "A", "top_n": good, "seed": good}, None) for good in ("", " ", "20", None, 3)),
])
def test_what_was_changed_of_a_wish_is_said(asked, words):
    """Catches a bad Top N or seed that is ignored, and 2,000 tokens that become 1,000, in silence."""
    ask = limits.Ask.clean(**{"prompt": "", **asked})
    assert [words in notice for notice in ask.notices] == ([True] if words else []), ask.notices
    assert ask.prompt == asked.get("prompt", "")[-limits.MAX_PROMPT:]  # the end is what the text goes on from


@pytest.mark.parametrize("prompt", ["", "ROMEO:\n", "no \x00 such \u4e16", "x" * 100])
def test_text_is_what_the_model_generates(prompt, loaded):
    """A second sampler: the app's text must be model.generate's, from nothing and past the context too."""
    *_, draft = writer.write(limits.Ask.clean(prompt, 80, 0.8, 20, seed=5))
    ids = loaded.tokenizer.encode(prompt) or [loaded.start]
    B = loaded.model.config.block_size
    want = loaded.model.generate(torch.tensor([ids[-B:]]), 80, 0.8, 20, seed=5)[0, -80:].tolist()
    assert draft.ids == [*ids, *want] and draft.written == loaded.tokenizer.decode(want) and draft.done


# ---- the line


def test_line_serves_in_order_and_refuses_beyond_its_length():
    """A queue without bound, one that overtakes, two in one slot, a slot that a leaving visitor keeps."""
    line = limits.Queue(slots=1, most=2)
    a, b, c = line.join(), line.join(), line.join()
    with pytest.raises(limits.Busy, match="20 visitors"):
        line.join()  # one at work, two waiting
    assert [line.ready(ticket, 0) for ticket in (a, b, c)] == [0, 1, 2]
    line.leave(b)  # gave up while waiting
    assert line.ready(c, 0) == 1
    line.leave(a)
    assert line.ready(c, 0) == 0
    line.leave(c)
    assert not line.tickets


def test_a_visitor_holds_two_places_and_an_address_eight():
    """Catches one visitor who takes the whole line, and a place that is not given back."""
    line = limits.Queue(slots=2, most=20)
    tickets = [line.join("page", "192.0.2.1") for _ in range(2)]
    with pytest.raises(limits.Busy, match="your texts"):
        line.join("page", "198.51.100.1")
    tickets += [line.join(f"p{i}", "192.0.2.1") for i in range(6)]
    with pytest.raises(limits.Busy, match="your texts"):
        line.join("p9", "192.0.2.1")
    for ticket in tickets:
        line.leave(ticket)
    line.join("page", "192.0.2.1")


def test_a_slot_is_free_at_once_when_a_text_ends_early(monkeypatch):
    """Catches a generation that goes on for a visitor who left, and a slot lost for ever at an exception."""
    writing = writer.write(limits.Ask.clean("A", 1000))
    next(writing)
    assert len(writer.QUEUE.tickets) == 1
    writing.close()
    assert idle()
    monkeypatch.setattr(writer, "sample", lambda *_: iter([1 / 0]))
    with pytest.raises(ZeroDivisionError):
        list(writer.write(limits.Ask.clean("A")))
    assert idle()


# ---- HTML


def soup(text):
    """The tags and the text as a browser would see them."""
    return BeautifulSoup(text, "html.parser")


NASTY = ["<script>alert(1)</script>", "${alert(1)}", "{{constructor}}", "`x`", '"><img src=x onerror=y>',
         "&lt;b&gt;", "\ud800"]


@pytest.mark.parametrize("text", NASTY)
def test_everything_on_the_page_is_escaped(text):
    """A visitor's or a file's text that becomes markup, a template of Gradio's, or cannot be encoded."""
    pieces = [*text, text]
    made = [
        look.manuscript(text, text, True), look.status_line([text], [text]), look.guess_bars(
            text, [(text, 0.5, 0.1, True)]),
        look.letters(text, pieces, [1.0] * len(pieces), pieces, 0, 1, seen={0: 0.5}),
        look.attention([*pieces, text], [0.5] * len(pieces), 1, 1, [[[0.5] * len(pieces)]]),
        look.headline({"corpus": {"name": text}, "seconds": 1}),
    ]
    allowed = {"div", "span", "p", "q", "b", "h3", "table", "thead", "tbody", "tr", "th", "td", "small", "i",
               "button", "svg", "path"}
    for page in made:
        tags = soup(page).find_all()
        assert {tag.name for tag in tags} <= allowed
        names = [name for tag in tags for name in tag.attrs]
        assert not any(name.startswith("on") or name == "src" for name in names)
        assert not any(wild in page for wild in ("{{", "${", "`")) and page.encode()
    assert text.replace("\ud800", "?") in soup(made[0]).text  # and it is still readable


# ---- look inside


def test_a_letter_read_from_the_right_turns_no_sentence_around():
    """Catches "looked most at ‘12 ,’x back": numbers and quotes drawn into a Hebrew letter's direction."""
    assert look.name_of("e") == "\u2018e\u2019" and look.name_of("\u05d0") == "\u2018\u2068\u05d0\u2069\u2019"


@pytest.mark.parametrize("teacher, says", [
    ("a/best,b/best,c/best,d/best", "in three minutes from what four other models would guess"),
    (3, "in three minutes")])
def test_a_taught_model_says_so(teacher, says):
    """A model whose targets were other models' opinions, shown as if the text alone had taught it."""
    assert look.learned({"corpus": {"name": "diary"}, "seconds": 180, "config": {"teacher": teacher}}
                        ) == f"Learned diary {says}"


@pytest.mark.parametrize("n_prompt", [1, 2, 31, 32, 33, 70])
def test_look_inside_shows_what_sampling_saw(loaded, n_prompt, monkeypatch):
    """Catches a Look inside that forgets what lay before its window: at each written place, the very ids that
    stream gave to the model; every place once, and never fewer than half a context where there are more.
    """
    B, seen, hidden = loaded.model.config.block_size, [], loaded.model.hidden
    monkeypatch.setattr(loaded.model, "hidden", lambda idx, *more: seen.append(idx[0].tolist())
                        or hidden(idx, *more))
    prompt = [i % 60 for i in range(n_prompt)]
    new = loaded.model.generate(torch.tensor([prompt[-B:]]), 100, seed=1, use_cache=False)[0, -100:]
    ids, places = [*prompt, *new.tolist()], []
    for start, first, end in writer.spans(len(ids), n_prompt, B):
        for place in range(first, end):
            places.append(place)
            assert min(place, max(1, B // 2)) <= place - start <= B
            if place >= n_prompt:
                assert ids[start:place] == seen[place - n_prompt]
    assert places == list(range(1, len(ids)))


def test_look_inside_tells_the_models_own_numbers(loaded):
    """Catches losses, bars or the table shifted by one place: they must be those at that very letter."""
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
    paper, bars, attention, at, _ = writer.view(ids, 7, 8, (2, 1))
    table = look.percent(float(loaded.table.next_probs(ids[:8])[ids[8]]))
    assert at == 8 and f"the table of counts {table}." in soup(bars).text
    assert "head 1 of layer 2" in attention
    assert f"{want[7]:.2f} nats" in soup(paper).find(class_="at")["title"]


PLACES = [(None, None), (-5, [99, 99]), (1e9, ["x", None]), ("NaN", [-1, 2])]


@pytest.mark.parametrize("sent, at, head, places", [
    *((nothing, 1, [1, 1], 0) for nothing in (None, [], [3], [1, 5], {}, "x", [[1], {}], [9, -1, 10**9, 5],
                                              [True, 1.5, None])),
    *(([n_prompt, *range(50)], None, None, 50) for n_prompt in (0, -7, 10**12)),
    *(([2, *range(50)], at, head, 50) for at, head in PLACES)])
def test_look_inside_at_what_a_hostile_browser_sends(sent, at, head, places):
    """An empty page that raises when its slider is touched; ids, a place or a head out of the text."""
    paper, bars, attention, slider = app.on_look(sent, at, head)
    assert paper.count("data-at=") == places and ("Write something first" in bars) == (not places)
    assert not places or 1 <= slider.value <= 49 and "<table" in bars and "mini" in attention


@pytest.mark.parametrize("n_prompt, length", [(990, 1000), (5, 700), (33, 40)])
def test_look_inside_at_a_text_longer_than_its_window(loaded, n_prompt, length):
    """A boundary between beginning and written text that stands mid-text, and places beyond the last."""
    B, ids = loaded.model.config.block_size, [2] * n_prompt + [3] * (length - n_prompt)
    *_, sent, _ = app.page_of(writer.Draft("", ids, n_prompt), limits.Ask.clean("A"), False)
    words, _, _, slider = app.on_look(sent)
    kept = min(n_prompt, B) + length - n_prompt
    assert words.count("data-at=") == min(kept, writer.WINDOW) and slider.maximum == kept - 1
    new = [tag for tag in soup(words).find_all(attrs={"data-at": True}) if "seed" not in tag["class"]]
    assert len(new) == min(length - n_prompt, writer.WINDOW) and ("…" in words) == (n_prompt >= B)


def test_a_model_without_examples_shows_its_own_text_and_nobody_elses(loaded):
    """Parts of the page that belong to nothing, and another text's examples."""
    page = app.build_app().config["components"]
    values = {part["props"].get("elem_id"): part["props"].get("value") for part in page}
    assert values["paper"].count('class="ch') > 50 and values["prompt"] == ""
    assert "data-at" not in str(values["attention"] + values["bars"])
    assert [part["props"]["value"] for part in page if part["type"] == "button"] == ["Generate", "Stop"]
    assert "ROMEO" not in str([part for part in page if part["type"] == "dataset"])


def test_a_model_of_pieces(tmp_path, monkeypatch):
    """Half a letter shown while it streams, words or sums about letters and a table that is not there."""
    russian = "Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный. " * 40
    folder = tiny_folder(tmp_path, pieces_of=russian)
    monkeypatch.setattr(writer, "HELD", writer.Loaded.from_folder(str(folder)))
    monkeypatch.setattr(writer, "STEP", 0)
    ids = writer.HELD.tokenizer.encode(text := "Мороз и 世界")
    assert len(ids) > len(text)  # letters that several ids spell
    monkeypatch.setattr(writer, "sample", lambda *_: iter(ids))
    parts = [draft.written for draft in writer.write(limits.Ask.clean(""))]
    assert parts[-1] == text and all(text.startswith(part) for part in parts)
    assert "".join(writer.pieces_of(ids)) == text and "\ufffd" not in "".join(writer.pieces_of(ids))
    assert "".join(writer.pieces_of(ids[:-1])) == writer.HELD.tokenizer.decode(ids[:-1])
    paper, bars, *_ = app.on_look([3, *ids])
    assert text in soup(paper).text and "nats a piece" in paper and "table" not in soup(bars).text
    assert "piece by piece" in look.headline(writer.HELD.card)


# ---- the endpoint


def test_generate_is_documented_streams_and_is_the_only_public_endpoint(server):
    """Catches an endpoint without a description, page events that leak, everything sent at the end."""
    client = Client(server, verbose=False)
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/generate"}
    names = [p["parameter_name"] for p in named["/generate"]["parameters"]]
    assert names == ["prompt", "max_tokens", "temperature", "top_n", "seed"]
    assert "max_tokens: 1 to" in named["/generate"]["description"]
    said, again, other = (client.predict(prompt="ROMEO:\n", max_tokens=30, seed=seed, api_name="/generate")
                          for seed in (3, 3, 4))
    assert said["text"] == again["text"] != other["text"] and len(said["text"]) == 30 and said["seed"] == 3
    texts = [part["text"] for part in client.submit(prompt="A", max_tokens=1000, api_name="/generate")]
    client.close()
    assert len(texts) > 2 and all(b.startswith(a) for a, b in zip(texts, texts[1:], strict=False))


HOSTILE = [
    "".join(map(chr, range(32))) + "\x7f\x85",
    "\u200b\u200e\u200f\u202a\u202b\u202d\u202e\u2066\u2067\u2069\ufeff\u061c",
    "<script></div><img src=x onerror=alert(1)><!--]]>&amp;&#x27;{{7*7}}${x}",
    "../../etc/passwd%00%s%n'; DROP TABLE x;--\\\\u0000", "null", "NaN", "\r\n", "data: ",
    "\U0001f600e\u0301\u0301\u4e16\u0e01\U00010000\uffff\ufdd0\u0300",
    CHARS, "x" * 2**17, "\u202e" * 2**15, "<b>" * 30_000, None, "",
]


def test_hostile_prompts(server):
    """Any prompt that ends in an error, loses an answer, or comes back as markup or control characters."""
    answers = crowd(server, [(prompt, 2, 0.7, None, 1) for prompt in HOSTILE], 8)
    # no client would send it
    answers.append(call(server, raw='{"data": ["a\\ud800b\\udfff", 3, 0.7, null, 1]}'))
    for prompt, (event, value) in zip([*HOSTILE, "half a pair"], answers, strict=True):
        assert event == "complete", (prompt and prompt[:60], event, value)
        assert set(value[0]["text"] + value[0]["prompt"]) <= set(CHARS)
        for notice in value[0]["notices"]:
            assert notice.isprintable() and not set(notice) & set("<>&"), notice
    assert value[0]["prompt"] == "ab" and "U+D800" in value[0]["notices"][0]


NONSENSE = ['{"data": []}', '{"data": [[], {}, "x", [1], "y"]}', '{"data": null}', "{", '{"data": [1, 2]}',
            None]


@pytest.mark.parametrize("raw", NONSENSE)
def test_no_inside_knowledge_reaches_a_visitor(server, raw, monkeypatch):
    """A traceback, a path, a token or a hanging connection as the answer to nonsense or to a fault."""
    if raw is None:
        monkeypatch.setattr(writer, "begin", lambda *_: open("/secret/path hf_secret"))
    event, value = call(server, *(["A", 3] if raw is None else []), raw=raw)
    said = json.dumps(value)
    assert event == "error" if raw is None else event in ("complete", "error", 400, 422, 500)
    inside = ("Traceback", str(Path(app.__file__).parent), "site-packages", "secret")
    assert not any(word in said for word in inside)


def test_twenty_visitors_at_once_are_served_or_told(server, monkeypatch):
    """A lost visitor, a dead thread pool, an unbounded queue, and a busy answer that is no sentence."""
    twenty = crowd(server, [("ROMEO:", 60, 0.7, None, i) for i in range(20)], 20)
    assert [event for event, _ in twenty] == ["complete"] * 20  # twenty fit into the line
    assert all(len(value[0]["text"]) == 60 for _, value in twenty) and idle()
    monkeypatch.setattr(writer, "QUEUE", limits.Queue(slots=1, most=2))
    gate = threading.Event()
    monkeypatch.setattr(writer, "sample", lambda *_: (gate.wait(20) and 5 for _ in range(3)))
    with ThreadPoolExecutor(20) as pool:
        answers = []
        for answer in as_completed([pool.submit(call, server, "A", 3, 0.7, None, 1) for _ in range(20)]):
            answers.append(answer.result())
            if len(answers) == 17:  # one at work and two waiting are left
                gate.set()
    assert [event for event, _ in answers] == ["error"] * 17 + ["complete"] * 3 and idle()
    assert all("Busy" in json.dumps(value) for _, value in answers[:17])


def test_a_visitor_who_leaves_stops_his_generation(server, monkeypatch):
    """Work that goes on after the connection is gone: the slot is free long before the text is done."""
    ended = threading.Event()

    def endless(ids, ask):
        try:
            while True:
                time.sleep(0.02)
                yield 5
        finally:
            ended.set()

    monkeypatch.setattr(writer, "sample", endless)
    _, said = request(server, "POST", CALL, json.dumps({"data": ["A", 1000, 0.7, None, 1]}))
    place = urlsplit(server)
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("GET", f"{CALL}/{json.loads(said)['event_id']}")
    connection.getresponse().read(10)
    assert len(writer.QUEUE.tickets) == 1
    connection.close()
    assert ended.wait(limits.MAX_SECONDS / 2), "still at work"


# ---- what this app never needs


FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n%b\r\n--x--'
FORM_KIND = "multipart/form-data; boundary=x"
FILE = {"path": "http://127.0.0.1/x", "meta": {"_type": "gradio.FileData"}}
NAMED = [json.dumps({"data": value, "fn_index": 0, "session_hash": "s"})
         for value in ([FILE], [[{"a": [FILE]}]], [{"path": "/etc/passwd"}])]


@pytest.mark.parametrize("path, body, kind, status", [
    ("/gradio_api/upload", FORM % (b"x" * 10**6), FORM_KIND, 413),
    ("/gradio_api/upload/?upload_id=a", FORM % b"x", FORM_KIND, 413),
    (CALL, json.dumps({"data": ["x" * 300_000]}), "application/json", 413),
    ("/gradio_api/queue/join", b"[" * 250_000, "application/json", 413),
    *((path, body, "application/json", 400) for path in (CALL, "/gradio_api/queue/join") for body in NAMED),
    (CALL, b'{"data": ' + b"[" * 90_000, "application/json", 400),
])
def test_uploads_long_bodies_and_names_of_files_are_refused(server, path, body, kind, status):
    """A stranger's 50 MB on the disk or in memory, and Gradio's downloader sent where a visitor likes."""
    answer, said = request(server, "POST", path, body, kind)
    assert answer == status and ("This app takes" in said or "at most 200,000" in said)


def test_requests_that_nobody_reads_leave_room_for_the_next_visitor(server, monkeypatch):
    """Thirty abandoned requests that fill the line: the next visitor must be served, not told "Busy"."""
    monkeypatch.setattr(writer, "QUEUE", limits.Queue(slots=1, most=2))
    ask = json.dumps({"data": ["A", 1000, 0.7, None, 1]})
    assert all(request(server, "POST", CALL, ask)[0] == 200 for _ in range(30))
    event, value = call(server, "A", 5, 0.7, None, 1)
    assert event == "complete" and len(value[0]["text"]) == 5
    monkeypatch.setattr(guard, "PATIENCE", 0)
    monkeypatch.setitem(guard.READING, "read", 1)
    assert guard.is_read("read") and not guard.is_read("unread")


def test_nothing_is_shared_or_shown_beside_the_page(server, monkeypatch):
    """Catches the page of statistics that Gradio opens to all, and a tunnel that nobody asked for."""
    with pytest.raises(OSError, match="HTTP Error"):
        urllib.request.urlopen(f"{server}/monitoring")
    options = {}
    monkeypatch.setattr("gradio.Blocks.launch", lambda self, **k: options.update(k)
                        or (None, "address", None))
    app.launch()
    assert options["share"] is False and options["enable_monitoring"] is False and options["max_file_size"]


# ---- starting


@pytest.mark.parametrize("port, words", [("99999", "no port 99999"), ("0", "no port 0"),
                                         ("taken", "is taken")])
def test_a_port_that_cannot_be_had_is_one_sentence(folder, capsys, port, words):
    """Catches a traceback of uvicorn's for a port that is taken or none."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = str(other.getsockname()[1]) if port == "taken" else port
        assert app.main(["--model", str(folder), "--port", number]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def no_numbers(folder):
    from model_gpt2 import GPT

    model = GPT.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(folder)


def other_table(folder, size=7, **of):
    from data.ngram import NGram

    NGram(5, size).fit(torch.randint(size, (500,)).numpy()).save(folder / "ngram5.npz", **of)


DEEP = '{"model": ' + "[" * 10**5 + "]" * 10**5 + "}"
SPOILED = [*((name, lambda f, n=name: (f / n).write_text(DEEP))
             for name in ("metrics.json", "tokenizer.json", "generation_config.json")),
           ("holds no JSON object", lambda f: (f / "metrics.json").write_text("[1]")),
           ("hold NaN", no_numbers),
           ("another text", other_table), ("config.json", lambda f: (f / "config.json").unlink()),
           ("another text", lambda f: other_table(f, len(CHARS), corpus_sha256="cd" * 32)),
           ("No model at nobody", "nobody/nothing-here")]


@pytest.mark.parametrize("words, change", SPOILED, ids=range(len(SPOILED)))
def test_a_hostile_or_broken_model_is_one_sentence(folder, tmp_path, capsys, monkeypatch, words, change):
    """Catches a traceback at start, and an app that shows "0 tokens" for ever because its weights are NaN."""
    monkeypatch.setattr(app, "launch", lambda *_, **__: pytest.fail("the app starts"))
    named = change
    if callable(change):
        change(named := shutil.copytree(folder, tmp_path / "m"))
    assert app.main(["--model", str(named)]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize("change", [
    {"corpus": "a string"}, {"val_loss": "low", "val_loss_char": None, "parameters": []},
    {"machine": 7, "config": "x"}, {"corpus": {"name": ["x"], "examples": "no list", "sha256": {}}},
    {"val_loss": float("nan"), "accuracy": True, "seconds": float("inf"), "heldout": 5}, None,
])
def test_odd_numbers_are_left_out(folder, tmp_path, change):
    """A page or a card that needs every value of metrics.json, or the file, to be what the trainer writes."""
    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(change or {})}))
    if change is None:
        path.unlink()
        (tmp_path / "m" / "ngram5.npz").unlink()
    held = writer.Loaded.from_folder(str(tmp_path / "m"))
    assert "million parameters" in look.headline(held.card) and "nan" not in look.headline(held.card)
    if change is None:
        return
    text = card.card(card.read_facts(tmp_path / "m"), "me/m", None, "x")
    assert not any(word in text for word in ("None", "nan nats", "inf"))
