"""Publishing with the Hub's real client against a Hub on this machine, and what a published model must be."""

import contextlib
import dataclasses
import json
import re
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

pytest.importorskip("huggingface_hub", reason="publishing needs huggingface_hub: pip install -e .[ship]")
import hub_server
import yaml
from hub_server import Hub
from huggingface_hub import constants, snapshot_download
from tiny_app import running_app, tiny_folder

from data.tokenizer import load_tokenizer
from model_gpt2 import GPT
from space import account, bundle, card, ours, publish, static_site
from space.folder import DRAFT, NEEDED, TABLE
from space.publish import PublishError, publish_model, publish_space

PUBLISHED = {*NEEDED, TABLE, "README.md", "notebook.ipynb", "thumbnail.png"}
RUSSIAN = "Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный. " * 40


FIRST = {"text": "ROMEO:\n" + "so it goes, " * 30, "n_prompt": 7, "nats": [None, *[1.5] * 366]}


@pytest.fixture(autouse=True)
def ready_made(monkeypatch):
    """A sample and a first text are there at once: each would take its time for every folder."""
    monkeypatch.setattr(card, "draw_sample", lambda *_: "a sample")
    for place in (card, static_site):
        monkeypatch.setattr(place, "first_text", lambda _: FIRST)
    monkeypatch.setattr(static_site.standin, "make", lambda: "To be drawn, a second each time.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 150 kB: its weights go by LFS, the rest as plain files."""
    return tiny_folder(tmp_path_factory.mktemp("model"), n_embd=32)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("other"), n_embd=48)


@pytest.fixture
def mine(folder, tmp_path):
    """A copy of the folder, to be spoiled."""
    return Path(shutil.copytree(folder, tmp_path / "mine"))


@pytest.fixture
def hub(monkeypatch, tmp_path, capsys):
    """A Hub of this machine, a cache of this test, no token anywhere, no patience between retries."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: None)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "GPT2_HEADLESS", "CI", "QUICK"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        yield server
    said = capsys.readouterr()
    assert "hf_loopback" not in said.out + said.err


def model(hub, folder, name="mine", **more):
    return publish_model(folder, name, **{"endpoint": hub.url, "token": hub.token, **more})


def space(hub, name="app", repo="reader/mine", target="static", **more):
    known = {"endpoint": hub.url, "token": hub.token, "poll": 0.01}
    return publish_space(name, repo, target, **{**known, **more})


def refused(call, *args, **more) -> str:
    """The one sentence with which something is refused."""
    with pytest.raises(PublishError) as error:
        call(*args, **more)
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and "hf_" not in text.replace("hf auth", ""), text
    return text


def same_logits(a, b, tolerance=0.0):
    ids = torch.arange(20)[None] % a.config.vocab_size
    with torch.no_grad():
        assert (a(ids)[0] - b(ids)[0]).abs().max().item() <= tolerance


def front_of(readme: bytes | str) -> dict:
    text = readme if isinstance(readme, str) else readme.decode()
    return yaml.safe_load(text.split("---\n")[1])


# ---- a model


def test_published_model_comes_back_with_the_same_logits(hub, folder, tmp_path):
    """A file lost or changed on the way: upload by LFS, commit, download, load, compare bit for bit."""
    done = model(hub, folder)
    assert done.repo_id == "reader/mine" and done.changed and done.address == f"{hub.url}/reader/mine"
    assert any(line.startswith("PUT /lfs/") for line in hub.seen), "the weights did not go by LFS"
    assert set(hub.repo("models", "reader/mine").files) == {".gitattributes", *PUBLISHED}
    back = Path(snapshot_download("reader/mine", endpoint=hub.url, cache_dir=tmp_path / "c", token=False))
    same_logits(GPT.from_pretrained(folder), GPT.from_pretrained(back))
    assert (back / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_commit_is_made_when_something_changed_and_only_then(hub, folder, other, capsys):
    """A commit (and a rebuilt Space) for each run of a notebook, also where the last answer got lost."""
    first, repo = model(hub, folder), hub.repo("models", "reader/mine")
    hub.fail("GET", "/api/whoami", cut_after=0)
    assert "No connection" in refused(model, hub, folder)
    again = model(hub, folder)  # one commit beside the empty start
    assert len(repo.commits) == 2 and not again.changed and again.commit == first.commit
    assert "no commit" in capsys.readouterr().out
    assert model(hub, other).changed and len(repo.commits) == 3


@pytest.mark.parametrize("target", [None, *bundle.TARGETS])
def test_a_dry_run_shows_the_folder_and_asks_nobody(hub, folder, tmp_path, capsys, target):
    """Catches a dry run that needs a token or sends something, by the command too."""
    out = str(tmp_path / "out")
    words = ["space", "app", str(folder), "--target", target] if target else ["model", str(folder), "mine"]
    assert publish.main([*words, "--dry-run", "--out", out]) == 0
    said = capsys.readouterr().out
    assert not hub.seen and (Path(out) / "README.md").exists() and (target or "mine") in said
    assert "model.safetensors" in said and re.search(r"bytes in \d+ files", said)


def test_a_large_model_goes_in_half_with_its_draft_and_moments_and_on_to_the_page(
        hub, mine, other, tmp_path, monkeypatch, capsys):
    """344 MB sent where 172 would do, other probabilities; a page of a large model without its draft or its
    time machine; moments of another model sent along.
    """
    monkeypatch.setattr(static_site, "HALF_ABOVE", 1000)
    monkeypatch.setattr(publish, "address", lambda what: "https://x.y/page")
    shutil.copytree(other, mine / "draft")
    for step in (5, 40):  # the trainer keeps them beside best/
        GPT.from_pretrained(mine).save_pretrained(mine.parent / "moments" / str(step), dtype=torch.float16)
    model(hub, mine)
    assert "https://x.y/page?model=reader/mine" in capsys.readouterr().out
    space(hub)  # from the client's cache, which is made of links
    repo, app = hub.repo("models", "reader/mine").files, hub.repo("spaces", "reader/app").files
    for files, home in ((repo, ""), (app, "model/")):
        assert {f"{home}{name}" for name in DRAFT} <= set(files)
        assert [name for name in sorted(files) if "moments" in name] == [
            f"{home}moments/{step}/model.safetensors" for step in (40, 5)]
        settings = json.loads(files[f"{home}generation_config.json"])
        assert settings["draft"] == "draft" and settings["bos_token_id"] == load_tokenizer(mine).start_id
    assert json.loads(repo["metrics.json"])["moments"] == json.loads(app["site.json"])["moments"] == [5, 40]
    (tmp_path / "half").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "half" / name).write_bytes(repo[name])
    size = (mine / "model.safetensors").stat().st_size / len(repo["model.safetensors"])
    assert 1.9 < size < 2.1 and b"in float16" in repo["README.md"]
    same_logits(GPT.from_pretrained(mine), GPT.from_pretrained(tmp_path / "half"), 0.2)
    GPT.from_pretrained(other).save_pretrained(mine.parent / "moments" / "5")
    assert "is not this model at an earlier step" in refused(model, hub, mine)


# ---- the card


def card_of(folder, change=None, **said):
    """(front matter, text) of the card of a folder whose metrics.json is changed."""
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, **(change or {})}))
    text = card.card(card.read_facts(folder), "me/m", None, "a sample", **said)
    return front_of(text), text


def test_the_card_holds_the_measured_numbers_and_no_others(mine):
    """A number written into the card by hand, and a front matter that lacks what the Hub shows of it."""
    (mine / "thumbnail.png").touch()
    front, text = card_of(mine)
    assert all(known in text for known in ("4.2100 nats", "4.3200 nats", "7 steps", "ab" * 32))
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 4.21
    assert front["datasets"] == ["karpathy/tiny_shakespeare"] and front["license"] == "mit"
    assert front["widget"][0]["output"]["text"] == "a sample"
    assert front["thumbnail"] == "https://huggingface.co/me/m/resolve/main/thumbnail.png"
    _, text = card_of(mine, {"val_loss": 1.2345, "val_loss_char": 1.2345, "step": 99})
    assert "1.2345 nats" in text and "4.2100" not in text and "99 steps" in text
    (mine / "metrics.json").write_text("{}")
    front, text = card_of(mine)
    assert not any(word in text for word in ("None", "validation loss", "40%", "model-index"))


@pytest.mark.parametrize("corpus, has, has_not", [
    ({"name": "standin", "floor": 1.5}, ["stand-in", "1.5000 nats"], ["Shakespeare"]),
    ({"name": "Байки.txt"}, ["Байки.txt", "Not stated"], ["Shakespeare", "language", "datasets"]),
])
def test_the_card_of_another_text_invents_nothing(mine, corpus, has, has_not):
    """Catches a language, a licence or a source that nobody stated; what the reader states is there."""
    _, text = card_of(mine, {"corpus": corpus})
    assert all(word in text for word in has) and not any(word in text for word in has_not)
    front, text = card_of(mine, license="cc0-1.0", language="uk", origin="a library")
    assert front["language"] == "uk" and front["license"] == "cc0-1.0" and "It is from a library." in text


HOSTILE = ["<script>alert(1)</script>", "[click](javascript:alert(1))", "a | b\n\n# Title",
           "https://evil.example", "![x](http://127.0.0.1/x)", "www.evil.example", "`code` *bold* &lt;",
           "</td>\n---\nlicense: x", "{shape} {0} {rows}"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_metrics_are_escaped_in_the_card(mine, name):
    """Catches a text's or a machine's name that becomes HTML, a link, a table's cell or the front matter."""
    markdown = pytest.importorskip("mistune")
    front, text = card_of(mine, {
        "corpus": {"name": name, "sha256": name}, "precision": name,
        "config": {"optimizer": name, "seed": name},
        "machine": dict.fromkeys(("device", "cpu", "torch", "commit", "date"), name),
    }, origin=name, license=name)
    known = {"license", "library_name", "pipeline_tag", "tags", "widget", "model-index", "thumbnail"}
    body = text.split("---\n", 2)[2]
    page = markdown.create_markdown(escape=False, plugins=["table", "url"])(body)
    assert set(front) <= known and not any(tag in page for tag in ("<script", "<a ", "<img"))
    assert page.count("<tr>") == body.count("\n| ") and page.count("<h1>") == 1


def test_requirements_and_readme_of_a_gradio_space():
    """A pin that differs from the project's own, the wrong torch, a front matter that the Hub refuses."""
    pins = bundle.pins()
    zero, cpu = bundle.requirements("zero-a10g"), bundle.requirements("cpu-basic")
    assert "torch==2.11.0\n" in zero and "index" not in zero
    assert f"torch=={pins['torch']}+cpu\n" in cpu and "download.pytorch.org/whl/cpu" in cpu
    for target, text in (("zero-a10g", zero), ("cpu-basic", cpu)):
        assert all(re.fullmatch(r"--.*|[a-z_]+==[\d.]+(\+cpu)?", line) for line in text.splitlines())
        assert f"numpy=={pins['numpy']}" in text and "gradio" not in text
        front = front_of(readme := bundle.space_readme("me/app", "me/m", target))
        assert not re.search(r"\{[A-Z]+\}", readme), "a word of the template is left"
        assert re.fullmatch(r"\d+\.\d+\.\d+", front["sdk_version"]) and front["python_version"] == "3.12"
        assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["models"] == ["me/m"]
        assert front["license"] == "mit" and len(front["short_description"]) <= 60  # the Hub's limit


# ---- a Space


def test_a_static_space_is_the_default_and_is_called_once(hub, folder, capsys):
    """A Space of the wrong kind, without its model, or announced without an answer."""
    model(hub, folder)
    done, repo = space(hub), hub.repo("spaces", "reader/app")
    assert repo.sdk == "static" and {"index.html", "model/model.safetensors", "README.md"} <= set(repo.files)
    front = front_of(repo.files["README.md"])
    assert front["hf_oauth"] is True and front["hf_oauth_scopes"] == ["manage-repos", "write-repos"]
    assert "GET /live/reader/app/index.html 200" in hub.seen and "2 layers, width 32" in done.answer
    assert done.duplicate.endswith("/spaces/reader/app?duplicate=true")
    assert done.duplicate in capsys.readouterr().out
    assert not space(hub).changed and len(repo.commits) == 2


ZERO_GPU = """import sys, pathlib
assert 'torch' not in sys.modules, 'torch came first'
def GPU(duration):
    def wrap(f):
        with open(pathlib.Path(__file__).with_name('wrapped'), 'a') as log:
            print(f.__name__, file=log)
        return f
    return wrap
"""


def test_a_gradio_space_runs_from_its_own_files_and_answers(hub, folder, tmp_path, capsys):
    """A file missing in the flat tree: the committed Space runs, fetches its model and is called. ZeroGPU's
    package comes before torch, as it must, and wraps both functions that need the card.
    """
    model(hub, folder)
    space(hub, target="zero-a10g", wait=False)
    repo, revision = hub.repo("spaces", "reader/app"), hub.repo("models", "reader/mine").commits[-1][0]
    tree = hub.write_tree("spaces", "reader/app", tmp_path / "tree")
    assert json.loads((tree / "model.json").read_text()) == {"model": "reader/mine", "revision": revision}
    (tree / "spaces.py").write_text(ZERO_GPU)
    clean = {"PYTHONPATH": "", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"),
             "HF_HUB_DISABLE_XET": "1"}
    with running_app(script=tree / "app.py", cwd=tree, **clean) as url:
        repo.host, repo.stages = url, ["RUNNING", *hub.next_stages]  # the first look is for the hardware
        done = space(hub, target="zero-a10g")
    assert re.findall(r" s  (\w+)", capsys.readouterr().out) == ["BUILDING", "APP_STARTING", "RUNNING"]
    assert len(done.answer) > 20 and not done.changed
    assert (tree / "wrapped").read_text().split() == ["sample", "inspect"]


def test_a_space_that_does_not_come_up(hub, folder, monkeypatch):
    """Catches an endless wait, and a failure without its reason or with the token in it."""
    model(hub, folder)
    hub.next_stages = ["BUILDING", "BUILD_ERROR"]
    hub.build_log = [f"line {i}\n" for i in range(100)] + [f"ERROR: no torch {hub.token}\n"]
    with pytest.raises(PublishError) as e:
        space(hub, target="zero-a10g")
    text = str(e.value)
    assert all(word in text for word in ("BUILD_ERROR", "ERROR: no torch [token]", "line 98"))
    assert "line 50" not in text
    hub.repo("spaces", "reader/app").stages = ["BUILDING"]
    monkeypatch.setattr(publish, "PATIENCE", 0.1)
    assert "still BUILDING" in refused(space, hub, target="zero-a10g")


# ---- nothing is published by mistake


def test_what_is_private_stays_private(hub, folder, capsys):
    """Catches a second publish that opens a private repo, and private=True that leaves a public one open."""
    model(hub, folder, private=True)
    repo = hub.repo("models", "reader/mine")
    for private, after in ((None, True), (False, False), (None, False), (True, True)):
        model(hub, folder, private=private)
        assert repo.private == after
    said = capsys.readouterr().out
    assert said.count("becomes public") == 1 and said.count("becomes private") == 1


def test_a_space_of_a_private_model_is_private_until_the_reader_says_otherwise(hub, folder, capsys):
    """Catches the weights of a private model that a static Space shows, or a Gradio one cannot read."""
    model(hub, folder, private=True)
    done = space(hub)
    assert hub.repo("spaces", "reader/app").private and done.private and not done.answer
    assert "is private too" in capsys.readouterr().out
    space(hub, name="open", private=False)
    opened = hub.repo("spaces", "reader/open")
    assert not opened.private and "to everyone, as you said" in capsys.readouterr().out
    commits = len(opened.commits)
    assert "is private and the Space reader/open is public" in refused(space, hub, name="open")
    assert len(opened.commits) == commits
    gradio = {"name": "gradio", "target": "zero-a10g", "wait": False}
    assert "cannot read it without a secret" in refused(space, hub, **gradio)
    assert ("spaces", "reader/gradio") not in hub.repos
    space(hub, **gradio, read_token="hf_loopback_read")
    repo = hub.repo("spaces", "reader/gradio")
    assert repo.private and repo.secrets == [{"key": "HF_TOKEN", "value": "hf_loopback_read"}]


def test_a_repo_that_we_did_not_make_is_not_touched_without_a_word(hub, folder):
    """Catches the default name on a repo that exists: its README and config replaced, the rest left."""
    files = {".gitattributes": b"", "README.md": b"# my thesis", "thesis.pdf": b"years of work"}
    ways = {("models", "reader/mine"): lambda **k: model(hub, folder, **k),
            ("spaces", "reader/app"): lambda **k: space(hub, repo=str(folder), **k)}
    for key, publish_it in ways.items():
        repo = hub.repos[key] = hub_server.Repo("static", commits=[("1" * 40, "mine", dict(files))])
        said = refused(publish_it)
        assert "did not make it" in said and "replace=True" in said and len(repo.commits) == 1
        publish_it(replace=True)
        assert "thesis.pdf" not in repo.files and ours.made_files(repo.files["README.md"].decode())


def test_a_repo_of_ours_ends_equal_to_the_folder_built(hub, folder, other, tmp_path, capsys):
    """Catches an old 5-gram that stays beside the model of another text; somebody's own file must stay."""
    model(hub, folder)
    repo = hub.repo("models", "reader/mine")
    repo.files["notes.txt"] = b"added by hand"
    bare = Path(shutil.copytree(other, tmp_path / "bare"))
    (bare / TABLE).unlink()
    model(hub, bare)
    assert set(repo.files) == {".gitattributes", "notes.txt", *PUBLISHED} - {TABLE}
    assert len(repo.commits) == 3 and re.search("Left as they are.*notes.txt", capsys.readouterr().out)
    model(hub, bare, replace=True)
    assert "notes.txt" not in repo.files


def test_a_space_changes_kind_and_hardware_only_when_asked_and_then_wholly(hub, folder):
    """Catches a static page's files (and its copy of the model) left in a Gradio Space, and old hardware."""
    model(hub, folder)
    space(hub)
    hub.users[hub.token]["paid"] = True
    assert "of the kind static" in refused(space, hub, target="cpu-basic", wait=False)
    space(hub, target="cpu-basic", wait=False, replace=True)
    repo = hub.repo("spaces", "reader/app")
    assert repo.sdk == "gradio" and repo.hardware == "cpu-basic"
    assert not {"index.html", "model/model.safetensors"} & set(repo.files)
    assert set(repo.files) - {".gitattributes"} == set(ours.made_files(repo.files["README.md"].decode()))
    space(hub, target="zero-a10g", wait=False)
    assert repo.hardware == "zero-a10g" and "torch==2.11.0" in repo.files["requirements.txt"].decode()


def test_a_repo_that_changes_between_look_and_commit_is_left_alone(hub, folder, other, monkeypatch):
    """Catches a commit on top of one that was never seen."""
    model(hub, folder)
    stand = publish.stand
    monkeypatch.setattr(publish, "stand", lambda *a: dataclasses.replace(stand(*a), sha="2" * 40))
    assert "same moment" in refused(model, hub, other)


@pytest.mark.parametrize("setting", ["GPT2_HEADLESS", "CI", "QUICK"])
def test_a_run_without_a_reader_publishes_nothing(hub, folder, monkeypatch, setting):
    """Catches `make run` with a token in the environment that publishes a model and a Space."""
    monkeypatch.setenv("HF_TOKEN", "hf_real")
    assert account.may_publish(True) == (True, "")
    assert not account.may_publish(False)[0] and not account.may_publish(True, own_model=False)[0]
    monkeypatch.setenv(setting, "1")
    assert not account.may_publish(True)[0]
    if setting == "GPT2_HEADLESS":  # and the library itself refuses, whatever a cell says
        assert "without a reader" in refused(publish_model, folder, "mine")


def build(model, out, target):
    """The folder of a model repo (target None) or of a Space."""
    if target is None:
        return bundle.build_model_folder(model, out, "me/m")
    return bundle.build_space_folder("me/app", "", out, target, folder=model)


@pytest.mark.parametrize("target", [None, *bundle.TARGETS])
def test_only_what_the_bundle_made_travels(mine, tmp_path, target):
    """.env, .git, last.pt or a folder behind a link that goes along, and a link to a token copied unread."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "token").write_text('{"token": "hf_secret"}')
    for name in (".env", "last.pt"):
        (mine / name).write_text("HF_TOKEN=hf_secret")
    (mine / "more").symlink_to(tmp_path / "secret")
    names = ours.files_in(out := build(mine, tmp_path / "out", target))
    assert "README.md" in names and not [name for name in names if re.search("env|more|last|secret", name)]
    build(mine, out, "static")  # an earlier build goes, and wholly
    assert "app.py" not in ours.files_in(out) and "index.html" in ours.files_in(out)
    (out / ".env").write_text("mine")
    with pytest.raises(ValueError, match=".env, which no earlier build"):
        build(mine, out, target)
    assert (out / ".env").read_text() == "mine"
    (mine / "metrics.json").unlink()
    (mine / "metrics.json").symlink_to(tmp_path / "secret" / "token")
    with pytest.raises(ValueError, match="leads out of the folder"):
        build(mine, tmp_path / "new", target)


@pytest.mark.parametrize("target", [None, "static", "zero-a10g"])
def test_building_over_the_model_itself_is_refused(folder, tmp_path, target):
    """A published folder that is built anew over itself: its own model was deleted first, and was lost."""
    inside = Path(shutil.copytree(folder, tmp_path / "app" / "model"))
    for out in (inside.parent, inside):
        with pytest.raises(ValueError, match="itself lies there"):
            build(inside, out, target)
        with pytest.raises(ValueError, match="cannot be the target"):
            static_site.build_static(inside, out)
    assert (inside / "model.safetensors").exists()


@pytest.mark.parametrize("road", [None, "static", "zero-a10g", "the page alone"])
def test_paths_of_this_machine_are_not_published(mine, tmp_path, road):
    """Catches /home/name/private diary.txt in the metrics.json of a public place, whatever the road to it."""
    me = "/home/me/private diary"
    paths = {name: me for name in ("out_dir", "data", "text", "copy_to", "grow_from")}
    card_of(mine, {"config": {**paths, "teacher": f"{me}/1,{me}/2", "n_layer": 1}})
    out = tmp_path / "out"
    static_site.build_static(mine, out) if road == "the page alone" else build(mine, out, road)
    told = [path for path in out.rglob("*") if path.name == "metrics.json"]
    assert [json.loads(path.read_text())["config"] for path in told] == [{"n_layer": 1, "teacher": "1,2"}]
    assert not [path for path in out.rglob("*") if path.is_file() and b"private diary" in path.read_bytes()]


def test_where_the_token_goes_is_said_first(hub, folder, monkeypatch, capsys):
    """A token that goes to another host, or unencrypted, without a word; or to the app that is called."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("http://", "http://user:hidden@"))
    with contextlib.suppress(PublishError):
        publish_model(folder, "mine", token=hub.token)
    said = capsys.readouterr().out
    assert said.startswith("Note: this is not the Hub itself") and "unencrypted" in said
    assert "hidden" not in said
    given = {}
    monkeypatch.setattr("gradio_client.Client", lambda host, **options: given.update(options))
    with contextlib.suppress(AttributeError):
        publish.call_gradio("http://127.0.0.1:9")
    assert given["token"] is False  # gradio_client's own habit is to send the stored one


# ---- what can go wrong


def spoil(name, text):
    return lambda folder: (folder / name).write_text(text)


def cut_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


@pytest.mark.parametrize("change, words", [
    (shutil.rmtree, "There is no folder"),
    (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    (spoil("tokenizer_config.json", "TOKEN=hf_secret"), "tokenizer_config.json cannot be read"),
    (cut_weights, "damaged"), (spoil("metrics.json", "[1]"), "metrics.json holds no JSON object"),
])
def test_a_folder_that_cannot_be_published(hub, mine, change, words):
    """A traceback for a mistyped path, half a file sent, anything under the name of a settings file."""
    change(mine)
    assert words in refused(model, hub, mine) and not hub.repos


@pytest.mark.parametrize("ask, words", [
    ({"token": None}, ["No token", "settings/tokens", "hf auth login", "Kaggle"]),
    ({"token": Hub.read_token}, ["from the argument may only read"]),
    ({"token": "hf_mistyped_9876543210"}, ["from the argument", "revoked"]),
    ({"endpoint": "http://127.0.0.1:9"}, ["No connection to the Hub", "turn on Internet"]),
    ({"name": "other/mine"}, ["belongs to other", "reader/mine"]),
    *(({"name": name}, ["is no name for a repo"])
      for name in ("my model", "a/b/c", "-x", "é", "x--y", "", "reader/", "m.git")),
    ({"name": "x" * 97}, ["too long"]),
])
def test_what_is_refused_before_anything_is_sent(hub, folder, ask, words):
    """A stack of the client's errors, or an upload of 172 MB that ends in 403, for a reader's first slips."""
    said = refused(model, hub, folder, **ask)
    assert all(word in said for word in words) and not hub.repos and len(hub.seen) <= 1


@pytest.mark.parametrize("status, words", [(400, "did not take"), (403, "right Write"), (404, "no such repo"),
                                           (409, "same moment"), (429, "pause"),
                                           (500, "itself has a problem")])
def test_answers_of_the_hub_become_sentences(hub, folder, status, words):
    """Catches the client's own wording, with addresses and request ids, and a retry without end."""
    hub.fail("POST", "/api/models/.*/commit/", status, times=99)
    said = refused(model, hub, folder)
    assert words in said and str(status) in said


@pytest.mark.parametrize("user, target, words", [
    ({}, "cpu-basic", ["402", "free account", "target='static'"]),
    ({"verified": False}, "zero-a10g", ["402", "older than 30 days", "target='static'"]),
    ({}, "static", ["402", "billing"]),
])
def test_402_says_which_target_to_choose(hub, folder, user, target, words):
    """Catches "Payment Required" without a way out, or with the way that was just tried."""
    hub.users[hub.token] |= user
    if target == "static":
        hub.fail("POST", "/api/repos/create", 402)
    said = refused(space, hub, repo=str(folder), target=target)
    assert all(word in said for word in words) and said.count("static") <= 1


def test_a_space_for_what_is_not_there(hub):
    """A Space that is made first and fails for want of its model, or a KeyError for an unknown target."""
    assert "no such repo" in refused(space, hub, repo="reader/none") and not hub.repos
    assert "choose one of static" in refused(space, hub, target="gpu")


def test_a_connection_cut_in_the_middle_of_an_upload(hub, folder):
    """Half a model on the Hub, an upload that cannot be taken up again, giving up at the first 503."""
    hub.fail("PUT", "/lfs/", cut_after=50_000, times=99)
    assert "run this again" in refused(model, hub, folder) and any("cut" in line for line in hub.seen)
    assert set(hub.repo("models", "reader/mine").files) == {".gitattributes"}  # nothing half is shown
    hub.faults.clear()
    hub.fail("PUT", "/lfs/", 503, times=2)
    assert model(hub, folder).changed and len(hub.repo("models", "reader/mine").commits) == 2


# ---- tokens


def test_token_sources_in_their_order(monkeypatch, tmp_path, hub):
    """Catches a source that is not looked at, or one whose own error ("no access") ends the notebook."""
    def modules(get):
        for name in ("google", "google.colab", "kaggle_secrets"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["google.colab"].userdata = types.SimpleNamespace(get=get)
        client = types.SimpleNamespace(get_secret=lambda name: "hf_kaggle")
        sys.modules["kaggle_secrets"].UserSecretsClient = lambda: client

    assert account.find_token() == (None, "nowhere")
    (tmp_path / "token").write_text("hf_stored")
    assert account.find_token() == ("hf_stored", "hf auth login")
    modules(lambda name: 1 / 0)
    assert account.find_token() == ("hf_kaggle", "Kaggle's secret HF_TOKEN")
    modules(lambda name: "hf_colab")
    assert account.find_token() == ("hf_colab", "Colab's secret HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", " hf_env\n")
    assert account.find_token() == ("hf_env", "HF_TOKEN")
    assert account.find_token("hf_given") == ("hf_given", "the argument")


def test_token_is_cut_out_of_errors(hub, folder, monkeypatch, capsys):
    """Catches a token that an error message repeats, and a command that ends in a traceback or in 0."""
    def broken(*_, **__):
        raise RuntimeError(f"bad header Authorization: Bearer {hub.token}")

    assert publish.main(["model", str(folder), "mine"]) == 1
    assert "No token" in (said := capsys.readouterr().err) and said.count("\n") == 1
    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", broken)
    assert "[token]" in refused(model, hub, folder)


# ---- the artifact is the real thing


@pytest.mark.parametrize("make", [
    tiny_folder, lambda p: tiny_folder(p, block_size=16), lambda p: tiny_folder(p, "\t\n abc", block_size=8),
    lambda p: tiny_folder(p, "\n абв", block_size=64), lambda p: tiny_folder(p, pieces_of=RUSSIAN)])
def test_transformers_writes_with_the_published_folder(tmp_path, capsys, make):
    """A folder that only our class can read, a card whose own snippet does not run for this model, "!" or TAB
    before every text: id 0 of a vocabulary that does not begin with the newline.
    """
    transformers = pytest.importorskip("transformers")
    out = build(make(tmp_path / "m"), tmp_path / "out", None)
    own, text = load_tokenizer(out), load_tokenizer(out).decode([3, 2, 1])
    ids = transformers.AutoTokenizer.from_pretrained(out)(text)["input_ids"]
    assert ids == own.encode(text)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        ours = GPT.from_pretrained(out)(torch.tensor([ids]))[0]
        gap = (theirs(torch.tensor([ids])).logits - ours).abs().max()
    assert gap < 1e-4 and own.decode([theirs.generation_config.bos_token_id]) == "\n"
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[1]
    book = json.loads((out / "notebook.ipynb").read_text())
    assert "".join(book["cells"][1]["source"]) == code.strip() and book["nbformat"] == 4
    exec(code.replace('"me/m"', repr(str(out))), {})
    assert len(capsys.readouterr().out) > 1


def test_a_model_of_pieces_is_published_as_what_it_is(tmp_path, monkeypatch):
    """Catches a card and a page that speak of letters and of a table that this model does not have."""
    monkeypatch.undo()  # here they are drawn
    folder = tiny_folder(tmp_path / "m", pieces_of=RUSSIAN)
    readme = (build(folder, tmp_path / "model", None) / "README.md").read_text()
    assert "- bpe\n" in readme and "reads characters" not in readme and "ngram5.npz" not in readme
    assert "4.2100 nats per character" in readme and card.draw_sample(folder, "М")[-1] != "\ufffd"
    site = json.loads((build(folder, tmp_path / "page", "static") / "site.json").read_text())
    assert site["opening"] is None  # one number a letter is what the page expects


def test_a_page_is_built_in_a_folder_of_its_own(mine, tmp_path, capsys):
    """A reader's README replaced, his notes deleted; a private text left in a page built without it."""
    out, text = tmp_path / "page", tmp_path / "diary.txt"
    text.write_text("Dear diary, today it rained. " * 200)
    assert static_site.main([str(mine), "--out", str(out), "--text", str(text)]) == 0
    assert (out / "input.txt").is_file()
    assert static_site.main([str(mine), "--out", str(out)]) == 0
    assert not (out / "input.txt").exists() and "input.txt" not in ours.files_in(out)
    (notes := out / "model" / "moments" / "notes.txt").parent.mkdir(exist_ok=True)
    notes.write_text("mine")
    page = (out / "index.html").read_text()
    assert static_site.main([str(mine), "--out", str(out)]) == 1
    assert "holds model/moments/notes.txt, which no earlier build put there" in capsys.readouterr().err
    assert notes.read_text() == "mine" and (out / "index.html").read_text() == page


@pytest.mark.parametrize("model", ["out/nothere/best", "out/best", "./best", "/a/b", "~/best", "a/b/c.bin"])
def test_a_folder_that_is_not_there_is_no_name_on_the_hub(model, hub, mine):
    """Somebody called "out" has a model called "best": it would stand on the reader's page."""
    with pytest.raises(PublishError, match="There is no folder .*: give the folder that training wrote"):
        publish_space("my-page", model, endpoint=hub.url)
    (mine.parent / "best").mkdir()
    with pytest.raises(PublishError, match="has no .*: give .*/best"):
        publish_space("my-page", str(mine.parent), dry_run=True, endpoint=hub.url)
    assert not hub.repos
