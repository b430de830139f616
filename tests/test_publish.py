"""Publishing with the Hub's real client against a Hub on this machine, and what a published model must still be."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

pytest.importorskip("huggingface_hub", reason="publishing needs huggingface_hub: pip install -e .[ship]")
import hub_server
from hub_server import Hub
from huggingface_hub import constants
from tiny_app import ROOT, running_app, tiny_folder

from model_gpt2 import GPT
from space import account, bundle, card, publish
from space.publish import PublishError, publish_model, publish_space

QUIET = {"poll": 0.01}
PUBLISHED = {*bundle.NEEDED, bundle.TABLE, "README.md", "notebook.ipynb"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 150 kB: its weights go by LFS, the rest as plain files."""
    return tiny_folder(tmp_path_factory.mktemp("model"), n_embd=32)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of this machine, a cache of this test, no token anywhere, and no patience between retries."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: None)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        yield server


@pytest.fixture
def said():
    """Collects what is printed; its text must never hold a token."""
    lines = []
    yield lines
    assert "hf_loopback" not in "\n".join(lines)


def model(hub, folder, name="mine", **more):
    return publish_model(folder, name, endpoint=hub.url, token=hub.token, **{"say": lambda s: None, **more})


def space(hub, name="app", repo="reader/mine", target="static", **more):
    more = {**QUIET, "say": lambda s: None, **more}
    return publish_space(name, repo, target, endpoint=hub.url, token=hub.token, **more)


def same_logits(a, b, tolerance=0.0):
    ids = torch.arange(20)[None] % a.config.vocab_size
    with torch.no_grad():
        assert (a(ids)[0] - b(ids)[0]).abs().max().item() <= tolerance


# ---- a model


def test_published_model_comes_back_with_the_same_logits(hub, folder, tmp_path, said, monkeypatch):
    """Catches a file lost or changed on the way: upload by LFS, commit, download, load, compare bit for bit."""
    done = model(hub, folder, say=said.append)
    assert done.repo_id == "reader/mine" and done.changed and done.address == f"{hub.url}/reader/mine"
    assert any(re.match(r"PUT /lfs/", line) for line in hub.seen), "the weights did not go by LFS"
    assert set(hub.repo("models", "reader/mine").files) == {".gitattributes", *PUBLISHED}
    from huggingface_hub import snapshot_download

    back = snapshot_download("reader/mine", endpoint=hub.url, cache_dir=tmp_path / "c", token=False)
    same_logits(GPT.from_pretrained(folder), GPT.from_pretrained(back))
    assert (Path(back) / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_second_run_makes_no_commit(hub, folder, said):
    """Catches a publish that adds a commit (and rebuilds a Space) each time a notebook is run again."""
    first, again = model(hub, folder), model(hub, folder, say=said.append)
    assert len(hub.repo("models", "reader/mine").commits) == 2  # the empty start, and one
    assert not again.changed and again.commit == first.commit
    assert any("no commit" in line for line in said)


def test_a_changed_model_makes_one_more_commit(hub, folder, tmp_path):
    """Catches "nothing has changed" being said of everything: the false pass of the test before this one."""
    model(hub, folder)
    other = tiny_folder(tmp_path / "other", n_embd=48)
    assert model(hub, other).changed
    assert len(hub.repo("models", "reader/mine").commits) == 3


def test_dry_run_shows_the_folder_and_asks_nobody(hub, folder, tmp_path, said):
    """Catches a dry run that needs a token or sends something."""
    done = publish_model(folder, "mine", dry_run=True, out=tmp_path / "out", say=said.append, endpoint=hub.url)
    assert not hub.seen and done.commit is None
    assert "model.safetensors" in said[0] and "bytes in 9 files" in said[0] and (tmp_path / "out/README.md").exists()


@pytest.mark.parametrize("target", list(bundle.TARGETS))
def test_dry_run_of_a_space_from_a_local_folder(hub, folder, tmp_path, said, target):
    """Catches a target whose folder cannot be built offline; the model then travels inside."""
    out = tmp_path / "out"
    publish_space("app", str(folder), target, dry_run=True, out=out, say=said.append, endpoint=hub.url)
    assert not hub.seen and (out / "model" / "model.safetensors").exists() and target in said[0]


def test_half_precision_is_half_the_size_and_close(folder, tmp_path):
    """Catches float16 that is asked for and not written, or a start id lost on the way."""
    out = bundle.build_model_folder(folder, tmp_path / "half", "me/m", dtype="float16")
    sizes = [(f / "model.safetensors").stat().st_size for f in (folder, out)]
    assert 1.9 < sizes[0] / sizes[1] < 2.1
    same_logits(GPT.from_pretrained(folder), GPT.from_pretrained(out), 0.2)
    starts = [json.loads((f / "generation_config.json").read_text())["bos_token_id"] for f in (folder, out)]
    assert starts[0] == starts[1]
    assert "in float16" in (out / "README.md").read_text()


def test_large_model_is_published_in_half_precision(folder, tmp_path, monkeypatch):
    """Catches 344 MB sent where 172 would do."""
    monkeypatch.setattr(bundle, "HALF_ABOVE", 1000)
    out = bundle.build_model_folder(folder, tmp_path / "out", "me/m")
    assert (out / "model.safetensors").stat().st_size < 0.6 * (folder / "model.safetensors").stat().st_size


def test_no_optimizer_state_and_no_pickle_is_published(folder, tmp_path):
    """Catches last.pt (three times the size, and a pickle) lying in the folder and going along."""
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "last.pt").write_bytes(b"x" * 1000)
    (tmp_path / "m" / ".env").write_text("HF_TOKEN=hf_secret")
    out = bundle.build_model_folder(tmp_path / "m", tmp_path / "out", "me/m")
    assert {p.name for p in out.iterdir()} == PUBLISHED


# ---- the card


def test_card_holds_the_measured_numbers_and_no_others(folder, tmp_path):
    """Catches a number written into the card by hand: changed metrics must change it."""
    facts = card.read_facts(folder)
    text = card.card(facts, "me/m", None, "a sample")
    assert "4.2100 nats" in text and "4.3200 nats" in text and "7 steps" in text and "ab" * 32 in text
    facts["metrics"] |= {"val_loss": 1.2345, "val_loss_char": 1.2345, "step": 99}
    text = card.card(facts, "me/m", None, "a sample")
    assert "1.2345 nats" in text and "4.2100" not in text and "99 steps" in text


def test_card_leaves_out_what_was_not_measured(folder):
    """Catches "None nats" and invented fields when metrics.json is almost empty."""
    facts = card.read_facts(folder)
    facts["metrics"] = {}
    text = card.card(facts, "me/m", None, "x")
    assert "None" not in text and "validation loss" not in text and "40%" not in text


def test_card_of_the_stand_in_says_what_it_is(folder):
    """Catches a model of the stand-in text that is shown as Shakespeare's."""
    facts = card.read_facts(folder)
    facts["metrics"] |= {"corpus": {"name": "standin", "sha256": "cd" * 32, "floor": 1.5}}
    text = card.card(facts, "me/m", None, "x")
    assert "Shakespeare" not in text
    assert "stand-in" in text and "1.5000 nats" in text


def test_card_of_another_text_invents_nothing(folder):
    """Catches a language, a licence or a source that nobody stated; what the reader states is there."""
    yaml = pytest.importorskip("yaml")
    facts = card.read_facts(folder)
    facts["metrics"] |= {"corpus": {"name": "\u0411\u0430\u0439\u043a\u0438.txt", "sha256": "cd" * 32}}
    text = card.card(facts, "me/m", None, "x")
    front = yaml.safe_load(text.split("---\n")[1])
    assert "language" not in front and "license" not in front and "datasets" not in front
    assert "Not stated" in text and "Shakespeare" not in text and "\u0411\u0430\u0439\u043a\u0438.txt" in text
    text = card.card(facts, "me/m", None, "x", license="cc0-1.0", language="uk", origin="a library")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["language"] == "uk" and front["license"] == "cc0-1.0" and "It is from a library." in text


HOSTILE = ["<script>alert(1)</script>", "[click](javascript:alert(1))", "a | b\n\n# Title", "https://evil.example",
           "![x](http://127.0.0.1/x)", "www.evil.example", "`code` *bold* &lt;", "</td>\n---\nlicense: x"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_metrics_are_escaped_in_the_card(folder, name):
    """Catches a text's or a machine's name that becomes HTML, a link, a table's cell or the front matter."""
    markdown = pytest.importorskip("mistune")
    yaml = pytest.importorskip("yaml")
    facts = card.read_facts(folder)
    facts["metrics"] |= {"corpus": {"name": name, "sha256": name}, "precision": name,
                         "machine": dict.fromkeys(("device", "cpu", "torch", "commit", "date"), name),
                         "config": {"optimizer": name, "seed": name}}  # fmt: skip
    text = card.card(facts, "me/m", None, "x", origin=name, license=name)
    front, body = text.split("---\n", 2)[1:]
    assert set(yaml.safe_load(front)) <= {"license", "library_name", "pipeline_tag", "tags", "widget", "model-index"}
    page = markdown.create_markdown(escape=False, plugins=["table", "url"])(body)
    assert "<script" not in page and "<a " not in page and "<img" not in page
    assert page.count("<tr>") == body.count("\n| ") and page.count("<h1>") == 1


def test_card_and_space_front_matter_are_yaml(folder, tmp_path):
    """Catches a front matter that the Hub would refuse."""
    yaml = pytest.importorskip("yaml")
    texts = {"model": card.card(card.read_facts(folder), "me/m", None, "x")}
    texts |= {t: bundle.space_readme("me/app", "me/m", t) for t in ("zero-a10g", "cpu-basic")}
    for name, text in texts.items():
        front = yaml.safe_load(text.split("---\n")[1])
        assert front["license"] == "mit"
        assert not re.search(r"\{[A-Z]+\}", text), f"a word of the template is left in {name}"
        if name != "model":
            assert re.fullmatch(r"\d+\.\d+\.\d+", front["sdk_version"]) and front["python_version"] == "3.12"
            assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["models"] == ["me/m"]
            assert len(front["short_description"]) <= 60  # the Hub's limit


def test_requirements_come_from_the_one_source():
    """Catches a pin that differs from the project's own, a missing one, and the wrong torch for a target."""
    pins = bundle.pins()
    zero, cpu = bundle.requirements("zero-a10g"), bundle.requirements("cpu-basic")
    assert "torch==2.11.0\n" in zero and "index" not in zero
    assert f"torch=={pins['torch']}+cpu\n" in cpu and "download.pytorch.org/whl/cpu" in cpu
    for text in (zero, cpu):
        for line in text.splitlines():
            assert line.startswith("--") or re.fullmatch(r"[a-z_]+==[\d.]+(\+cpu)?", line)
        assert f"numpy=={pins['numpy']}" in text and "gradio" not in text


# ---- a Space


def test_static_space_is_the_default_and_is_called_once(hub, folder, said):
    """Catches a Space that is made with the wrong kind, lacks its model, or is announced without having answered."""
    model(hub, folder)
    done = space(hub, say=said.append)
    repo = hub.repo("spaces", "reader/app")
    assert repo.sdk == "static" and {"index.html", "model/model.safetensors", "README.md"} <= set(repo.files)
    assert "sdk: \"static\"" in repo.files["README.md"].decode()
    assert "GET /live/reader/app/index.html 200" in hub.seen
    assert done.duplicate.endswith("/spaces/reader/app?duplicate=true") and done.duplicate in "\n".join(said)
    assert not space(hub).changed and len(repo.commits) == 2


def test_gradio_space_runs_from_its_own_files_and_answers(hub, folder, tmp_path, said, monkeypatch):
    """Catches a file missing in the flat tree: the committed Space runs as it is, fetches its model and is called."""
    model(hub, folder)
    space(hub, target="zero-a10g", wait=False)
    repo = hub.repo("spaces", "reader/app")
    tree = hub.write_tree("spaces", "reader/app", tmp_path / "tree")
    revision = hub.repo("models", "reader/mine").commits[-1][0]
    assert json.loads((tree / "model.json").read_text()) == {"model": "reader/mine", "revision": revision}
    clean = {"PYTHONPATH": "", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    with running_app(script=tree / "app.py", cwd=tree, **clean) as url:
        repo.host, repo.stages = url, ["RUNNING", *hub.next_stages]  # the first look is for the hardware
        done = space(hub, target="zero-a10g", say=said.append)
    assert [line.split()[-1] for line in said if " s  " in line] == ["BUILDING", "APP_STARTING", "RUNNING"]
    assert len(done.answer) > 20 and not done.changed


def test_failed_build_shows_the_end_of_its_log(hub, folder, said):
    """Catches an endless wait for a Space that has failed, and a failure without its reason."""
    model(hub, folder)
    hub.next_stages = ["BUILDING", "BUILD_ERROR"]
    hub.build_log = [f"line {i}\n" for i in range(100)] + [f"ERROR: no torch {hub.token}\n"]
    with pytest.raises(PublishError) as e:
        space(hub, target="zero-a10g", say=said.append)
    text = str(e.value)
    assert "BUILD_ERROR" in text and "ERROR: no torch" in text and "line 98" in text and "line 50" not in text
    assert hub.token not in text


def test_a_space_that_takes_too_long_is_one_sentence(hub, folder, monkeypatch):
    """Catches a wait without end."""
    model(hub, folder)
    hub.next_stages = ["BUILDING"]
    monkeypatch.setattr(publish, "PATIENCE", 0.1)
    with pytest.raises(PublishError, match="still BUILDING"):
        space(hub, target="zero-a10g")


def test_an_existing_space_gets_the_hardware_that_is_asked_for(hub, folder):
    """Catches a second publish with another target that leaves the old hardware."""
    model(hub, folder)
    hub.users[hub.token]["paid"] = True
    space(hub, target="cpu-basic", wait=False)
    space(hub, target="zero-a10g", wait=False)
    assert hub.repo("spaces", "reader/app").hardware == "zero-a10g"
    assert "torch==2.11.0" in hub.repo("spaces", "reader/app").files["requirements.txt"].decode()


def test_history_near_the_limit_is_announced(hub, folder, said, monkeypatch):
    """Catches a static Space that fills up without a word."""
    model(hub, folder)
    monkeypatch.setattr(publish, "HISTORY_LIMIT", 1000)
    space(hub, say=said.append)
    assert any("with its history" in line for line in said)


# ---- nothing is published by mistake


def test_what_is_private_stays_private(hub, folder, said):
    """Catches a second publish that opens a private repo, and private=True that leaves a public one open."""
    model(hub, folder, private=True)
    repo = hub.repo("models", "reader/mine")
    assert repo.private
    model(hub, folder)
    assert repo.private
    model(hub, folder, private=False, say=said.append)
    assert not repo.private and "becomes public" in "\n".join(said)
    model(hub, folder, private=True, say=said.append)
    assert repo.private and "becomes private" in "\n".join(said)


def test_space_of_a_private_model_is_private_until_the_reader_says_otherwise(hub, folder, said):
    """Catches the weights of a private model that a static Space shows to everybody."""
    model(hub, folder, private=True)
    done = space(hub, say=said.append)
    assert hub.repo("spaces", "reader/app").private and done.private and not done.answer
    assert "is private too" in "\n".join(said)
    space(hub, name="open", private=False, say=said.append)
    assert not hub.repo("spaces", "reader/open").private and "to everyone, as you said" in "\n".join(said)
    hub.repo("spaces", "reader/open").commits[-1][2].pop("index.html")
    with pytest.raises(PublishError) as e:
        space(hub, name="open")
    assert "is private and the Space reader/open is public" in sentence(e)
    assert "index.html" not in hub.repo("spaces", "reader/open").files


def test_gradio_space_of_a_private_model_needs_a_secret(hub, folder):
    """Catches a Space that is made first and fails to read its model."""
    model(hub, folder, private=True)
    with pytest.raises(PublishError) as e:
        space(hub, target="zero-a10g", wait=False)
    assert "cannot read it without a secret" in sentence(e) and ("spaces", "reader/app") not in hub.repos
    space(hub, target="zero-a10g", wait=False, read_token="hf_loopback_read")
    repo = hub.repo("spaces", "reader/app")
    assert repo.private and repo.secrets == [{"key": "HF_TOKEN", "value": "hf_loopback_read"}]


def foreign(hub, kind="models", name="reader/mine", sdk=None):
    """A repo that somebody else's work lies in."""
    files = {".gitattributes": b"", "README.md": b"# my thesis", "thesis.pdf": b"years of work"}
    hub.repos[(kind, name)] = hub_server.Repo(sdk, commits=[("1" * 40, "mine", files)])
    return hub.repos[(kind, name)]


def test_a_repo_that_we_did_not_make_is_not_touched_without_a_word(hub, folder):
    """Catches the default name on a repo that exists: its README and config replaced, the rest left."""
    repos = foreign(hub), foreign(hub, "spaces", "reader/app", "static")
    for publish_it in (lambda **k: model(hub, folder, **k), lambda **k: space(hub, repo=str(folder), **k)):
        with pytest.raises(PublishError) as e:
            publish_it()
        assert "did not make it" in sentence(e) and "replace=True" in sentence(e)
    assert all(len(repo.commits) == 1 for repo in repos)
    model(hub, folder, replace=True)
    space(hub, repo=str(folder), replace=True)
    for repo in repos:
        assert "thesis.pdf" not in repo.files and bundle.made_files(repo.files["README.md"].decode())


def test_a_repo_of_ours_ends_equal_to_the_folder_built(hub, folder, tmp_path, said):
    """Catches an old 5-gram that stays beside the model of another text; somebody's own file must stay."""
    model(hub, folder)
    repo = hub.repo("models", "reader/mine")
    repo.files["notes.txt"] = b"added by hand"
    other = tiny_folder(tmp_path / "other", n_embd=48)
    (other / "ngram5.npz").unlink()
    model(hub, other, say=said.append)
    assert set(repo.files) == {".gitattributes", "notes.txt", *PUBLISHED} - {"ngram5.npz"}
    assert len(repo.commits) == 3 and "Left as they are" in "\n".join(said) and "notes.txt" in "\n".join(said)
    model(hub, other, replace=True)
    assert "notes.txt" not in repo.files


def test_a_space_changes_its_kind_only_when_asked_and_then_wholly(hub, folder):
    """Catches a static page's files (and its copy of the model) left in a Gradio Space."""
    model(hub, folder)
    space(hub)
    with pytest.raises(PublishError) as e:
        space(hub, target="zero-a10g", wait=False)
    assert "of the kind static" in sentence(e)
    space(hub, target="zero-a10g", wait=False, replace=True)
    repo = hub.repo("spaces", "reader/app")
    assert repo.sdk == "gradio" and "index.html" not in repo.files and "model/model.safetensors" not in repo.files
    assert set(repo.files) - {".gitattributes"} == set(bundle.made_files(repo.files["README.md"].decode()))


def test_a_repo_that_changes_between_look_and_commit_is_left_alone(hub, folder, tmp_path, monkeypatch):
    """Catches a commit on top of one that was never seen."""
    model(hub, folder)
    other = tiny_folder(tmp_path / "other", n_embd=48)
    stand = publish.stand
    monkeypatch.setattr(publish, "stand", lambda *a: dataclasses.replace(stand(*a), sha="2" * 40))
    with pytest.raises(PublishError, match="same moment"):
        model(hub, other)


@pytest.mark.parametrize("setting", ["GPT2_HEADLESS", "CI", "QUICK"])
def test_a_run_without_a_reader_publishes_nothing(folder, monkeypatch, setting):
    """Catches `make run` with a token in the environment that publishes a model and a Space."""
    monkeypatch.setenv("HF_TOKEN", "hf_real")
    for name in ("GPT2_HEADLESS", "CI", "QUICK"):
        monkeypatch.delenv(name, raising=False)
    assert account.may_publish(True) == (True, "")
    assert not account.may_publish(False)[0] and not account.may_publish(True, own_model=False)[0]
    monkeypatch.setenv(setting, "1")
    assert not account.may_publish(True)[0]
    if setting == "GPT2_HEADLESS":  # and the library itself refuses, whatever a cell says
        with pytest.raises(PublishError, match="without a reader"):
            publish_model(folder, "mine")


def test_only_what_the_bundle_made_travels(hub, folder, tmp_path):
    """Catches a .env in the folder named by out= that goes along, and a folder of somebody's that is emptied."""
    (out := tmp_path / "out").mkdir()
    (out / ".env").write_text("HF_TOKEN=hf_secret")
    for do in (lambda: model(hub, folder, out=out), lambda: space(hub, repo=str(folder), out=out)):
        with pytest.raises(PublishError) as e:
            do()
        assert ".env" in sentence(e)
    assert (out / ".env").exists() and not hub.repos
    for target in ("static", "zero-a10g", "static"):  # an earlier build goes, and wholly
        publish_space("app", str(folder), target, dry_run=True, out=tmp_path / "new", say=lambda s: None)
    assert "app.py" not in bundle.files_in(tmp_path / "new")


def test_a_console_that_cannot_show_a_letter_ends_no_publishing(hub, folder, monkeypatch):
    """Catches a traceback after the upload, over what the app of a Cyrillic text answered."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(publish, "call_once", lambda *args: "\u043f\u0440\u0438\u0432\u0435\u0442")
    publish_space("app", str(folder), endpoint=hub.url, token=hub.token, **QUIET)
    assert b"It answers: ??????" in screen.buffer.getvalue()


def build(model, out, target):
    """The folder of a model repo (target None) or of a Space."""
    if target is None:
        return bundle.build_model_folder(model, out, "me/m")
    return bundle.build_space_folder("me/app", "", out, target, folder=model)


@pytest.mark.parametrize("inside", [False, True])
def test_building_over_the_model_itself_is_refused(folder, tmp_path, inside):
    """Catches a published folder that is built anew over itself: its own model was deleted first, and was lost."""
    bundle.build_model_folder(folder, tmp_path / "site" / "model", "me/m")
    bundle.build_space_folder("me/app", "", tmp_path / "app", "zero-a10g", folder=folder)
    mine, out = tmp_path / "site" / "model", tmp_path / "site" / "model"
    if inside:
        mine, out = tmp_path / "app" / "model", tmp_path / "app"
    before = bundle.files_in(out)
    for target in (None, "static", "zero-a10g"):
        with pytest.raises(ValueError, match="itself lies there") as e:
            build(mine, out, target)
        assert "\n" not in str(e.value) and bundle.files_in(out) == before


@pytest.mark.parametrize("target", [None, *bundle.TARGETS])
def test_links_and_strange_files_do_not_travel(folder, tmp_path, target):
    """Catches a link to a token that is copied unread, a folder behind a link, .git and .env in a Space."""
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "token").write_text('{"token": "hf_secret"}')
    (tmp_path / "m" / ".env").write_text("HF_TOKEN=hf_secret")
    (tmp_path / "m" / "more").symlink_to(tmp_path / "secret")

    out = build(tmp_path / "m", tmp_path / "one", target)
    assert not [name for name in bundle.files_in(out) if ".env" in name or "more" in name]
    (tmp_path / "m" / "metrics.json").unlink()
    (tmp_path / "m" / "metrics.json").symlink_to(tmp_path / "secret" / "token")
    with pytest.raises(ValueError, match="leads out of the folder"):
        build(tmp_path / "m", tmp_path / "two", target)


def test_the_hubs_own_cache_is_made_of_links_and_may_be_published(folder, tmp_path):
    """Catches the refusal of links where they are harmless: a snapshot whose files lie in blobs."""
    blobs, snapshot = tmp_path / "models--me--m" / "blobs", tmp_path / "models--me--m" / "snapshots" / "abc"
    shutil.copytree(folder, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert "model.safetensors" in bundle.files_in(bundle.build_model_folder(snapshot, tmp_path / "out", "me/m"))


def test_json_that_does_not_parse_is_not_published(folder, tmp_path):
    """Catches any file at all that travels under the name of a settings file."""
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "tokenizer_config.json").write_text("TOKEN=hf_secret")
    with pytest.raises(ValueError, match="tokenizer_config.json cannot be read"):
        bundle.build_model_folder(tmp_path / "m", tmp_path / "out", "me/m")


def test_folders_of_this_machine_are_not_published(folder, tmp_path):
    """Catches /home/name/... in the metrics.json of a public repo."""
    shutil.copytree(folder, tmp_path / "m")
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    metrics["config"] |= {"out_dir": "/home/me/out", "data": "/home/me/diary.txt", "copy_to": "/media/me"}
    (tmp_path / "m" / "metrics.json").write_text(json.dumps(metrics))
    out = bundle.build_model_folder(tmp_path / "m", tmp_path / "out", "me/m")
    assert not [path for path in out.iterdir() if b"/me" in path.read_bytes().replace(b"me/m", b"")]


def test_an_endpoint_that_is_not_the_hub_is_announced_first(hub, folder, monkeypatch, said):
    """Catches a token that goes to another host, or unencrypted, without a word."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("http://", "http://user:hidden@"))
    with contextlib.suppress(PublishError):
        publish_model(folder, "mine", token=hub.token, say=said.append)
    assert said[0].startswith("Note: this is not the Hub itself") and "unencrypted" in said[0]
    assert "hidden" not in "\n".join(said)


def test_no_token_goes_to_the_app_that_is_called(monkeypatch):
    """Catches gradio_client's own habit: it sends the stored token to whatever app it calls."""
    given = {}

    def refuse(host, **options):
        given.update(options)
        raise ConnectionError

    monkeypatch.setattr("gradio_client.Client", refuse)
    with pytest.raises(ConnectionError):
        publish._call_gradio("http://127.0.0.1:9")
    assert given["token"] is False


# ---- what can go wrong


def sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and "hf_" not in text.replace("hf auth", ""), text
    return text


@pytest.mark.parametrize("user, target, words", [
    ({}, "cpu-basic", ["402", "free account", "target='static'"]),
    ({"verified": False}, "zero-a10g", ["402", "older than 30 days", "target='static'"]),
    ({}, "static", ["402", "billing"]),
])  # fmt: skip
def test_402_says_which_target_to_choose(hub, folder, user, target, words):
    """Catches "Payment Required" without the way out, which is what a free account meets first."""
    model(hub, folder)
    hub.users[hub.token] |= user
    if target == "static":
        hub.fail("POST", "/api/repos/create", 402)
    with pytest.raises(PublishError) as e:
        space(hub, target=target)
    assert all(word in sentence(e) for word in words) and sentence(e).count("static") <= 1


def test_no_token_says_where_to_put_one(hub, folder):
    """Catches a stack of the client's errors for the reader's first and most likely mistake."""
    with pytest.raises(PublishError) as e:
        publish_model(folder, "mine", endpoint=hub.url)
    assert "settings/tokens" in sentence(e) and "hf auth login" in sentence(e) and "Kaggle" in sentence(e)
    assert not hub.seen


def test_read_only_token_is_refused_before_anything_is_sent(hub, folder):
    """Catches an upload of 172 MB that ends in 403."""
    with pytest.raises(PublishError) as e:
        publish_model(folder, "mine", endpoint=hub.url, token=hub.read_token)
    assert "only read" in sentence(e) and len(hub.seen) == 1


def test_unknown_token_names_its_source(hub, folder, monkeypatch):
    """Catches "401" without saying which of five places holds the wrong token."""
    monkeypatch.setenv("HF_TOKEN", "hf_mistyped_9876543210")
    with pytest.raises(PublishError) as e:
        publish_model(folder, "mine", endpoint=hub.url)
    assert "HF_TOKEN" in sentence(e) and "revoked" in sentence(e)


def test_someone_elses_repo(hub, folder):
    """Catches a 403 in the middle; the owner is known before anything is built."""
    with pytest.raises(PublishError) as e:
        model(hub, folder, "other/mine")
    assert "belongs to other" in sentence(e) and "reader/mine" in sentence(e)


@pytest.mark.parametrize("name", ["my model", "a/b/c", "-x", "é", "x--y", "", "reader/", "m.git"])
def test_wrong_names_are_told_before_anything_is_sent(hub, folder, name):
    """Catches a name that the Hub refuses after the upload."""
    with pytest.raises(PublishError) as e:
        model(hub, folder, name)
    assert "is no name for a repo" in sentence(e)
    with pytest.raises(PublishError) as e:
        model(hub, folder, "x" * 97)
    assert "too long" in sentence(e) and "digits" not in sentence(e)


@pytest.mark.parametrize("status, words", [(400, "did not take"), (403, "right Write"), (404, "no such repo"),
                                           (409, "same moment"), (429, "pause")])  # fmt: skip
def test_answers_of_the_hub_become_sentences(hub, folder, status, words):
    """Catches the client's own wording, with addresses and request ids, where a reader needs one step to take."""
    hub.fail("POST", r"/api/models/.*/commit/", status, times=9)
    with pytest.raises(PublishError) as e:
        model(hub, folder)
    assert words in sentence(e) and str(status) in sentence(e)


def test_a_passing_fault_of_the_hub_is_survived(hub, folder):
    """Catches giving up at the first 503 of an upload."""
    hub.fail("PUT", r"/lfs/", 503, times=2)
    assert model(hub, folder).changed


def test_a_lasting_fault_of_the_hub_is_a_sentence(hub, folder):
    """Catches a retry without end."""
    hub.fail("POST", r"/preupload/", 500, times=99)
    with pytest.raises(PublishError) as e:
        model(hub, folder)
    assert "itself has a problem" in sentence(e)


def test_connection_cut_in_the_middle_of_an_upload(hub, folder, said):
    """Catches half a model on the Hub, and an upload that cannot be taken up again."""
    hub.fail("PUT", r"/lfs/", cut_after=50_000, times=99)
    with pytest.raises(PublishError) as e:
        model(hub, folder)
    assert "run this again" in sentence(e)
    assert set(hub.repo("models", "reader/mine").files) == {".gitattributes"}  # nothing half is shown
    assert any("cut" in line for line in hub.seen)
    hub.faults.clear()
    assert model(hub, folder, say=said.append).changed
    assert len(hub.repo("models", "reader/mine").commits) == 2


def test_an_answer_lost_after_the_commit_needs_no_second_commit(hub, folder):
    """Catches a duplicate commit when only the last answer got lost and the cell is run again."""
    model(hub, folder)
    hub.fail("GET", r"/api/whoami", cut_after=0, times=1)
    with pytest.raises(PublishError, match="No connection"):
        model(hub, folder)
    assert not model(hub, folder).changed


def test_no_network_is_a_sentence(folder, hub):
    """Catches forty lines of connection errors on a Kaggle notebook whose Internet is off."""
    with pytest.raises(PublishError) as e:
        publish_model(folder, "mine", endpoint="http://127.0.0.1:9", token=hub.token)
    assert "No connection to the Hub" in sentence(e) and "turn on Internet" in sentence(e)


def test_a_space_for_a_model_that_is_not_there(hub):
    """Catches a Space that is made first and fails for want of its model."""
    with pytest.raises(PublishError) as e:
        space(hub, repo="reader/none")
    assert "no such repo" in sentence(e) and not hub.repos


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p])
def test_a_folder_that_is_no_model(hub, tmp_path, make):
    """Catches a traceback for a mistyped path."""
    with pytest.raises(PublishError) as e:
        model(hub, make(tmp_path))
    assert "give the folder that training wrote" in sentence(e)


def test_a_damaged_model_is_told(hub, folder, tmp_path):
    """Catches the publishing of half a file."""
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(PublishError) as e:
        model(hub, tmp_path / "m")
    assert "damaged" in sentence(e)


def test_unknown_target(hub, folder):
    """Catches a KeyError for a target that does not exist."""
    with pytest.raises(PublishError, match="choose one of static"):
        space(hub, target="gpu")


# ---- tokens


def test_token_sources_in_their_order(monkeypatch, tmp_path, hub):
    """Catches a source that is not looked at: the argument, the environment, Colab, Kaggle, hf auth login."""
    assert account.find_token() == (None, "nowhere")
    (tmp_path / "token").write_text("hf_stored")
    assert account.find_token() == ("hf_stored", "hf auth login")
    kaggle = types.ModuleType("kaggle_secrets")
    kaggle.UserSecretsClient = lambda: types.SimpleNamespace(get_secret=lambda name: "hf_kaggle")
    monkeypatch.setitem(sys.modules, "kaggle_secrets", kaggle)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert account.find_token() == ("hf_kaggle", "Kaggle's secret HF_TOKEN")
    google, colab = types.ModuleType("google"), types.ModuleType("google.colab")
    colab.userdata = types.SimpleNamespace(get=lambda name: "hf_colab")
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert account.find_token() == ("hf_colab", "Colab's secret HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", " hf_env\n")
    assert account.find_token() == ("hf_env", "HF_TOKEN")
    assert account.find_token("hf_given") == ("hf_given", "the argument")


def test_a_secret_that_may_not_be_read_is_passed_over(monkeypatch, hub):
    """Catches Colab's own error type ("notebook does not have access") ending the notebook."""
    def refuse(name):
        raise RuntimeError("no access")

    colab = types.ModuleType("google.colab")
    colab.userdata = types.SimpleNamespace(get=refuse)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert account.find_token() == (None, "nowhere")


def test_token_is_cut_out_of_errors(hub, folder, monkeypatch):
    """Catches a token that an error message repeats."""
    def broken(**_):
        raise RuntimeError(f"bad header Authorization: Bearer {hub.token}")

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", lambda self, *a, **k: broken(**k))
    with pytest.raises(PublishError) as e:
        model(hub, folder)
    assert hub.token not in str(e.value) and "[token]" in str(e.value)


# ---- the command


def test_command_dry_run_and_its_errors(folder, tmp_path):
    """Catches a command that prints a traceback or returns 0 for an error."""
    def run(*words):
        env = {**os.environ, "HF_HOME": str(tmp_path)}
        return subprocess.run([sys.executable, "-m", "space.publish", *map(str, words)], cwd=ROOT, env=env,
                              capture_output=True, text=True, timeout=500)  # fmt: skip

    done = run("model", folder, "mine", "--dry-run")
    assert done.returncode == 0 and "model.safetensors" in done.stdout, done.stderr
    done = run("space", "app", tmp_path / "none", "--target", "zero-a10g")
    assert done.returncode == 1 and "No token" in done.stderr and done.stderr.count("\n") == 1


# ---- the artifact is the real thing


def test_transformers_writes_with_the_published_folder(folder, tmp_path):
    """Catches a folder that only our own class can read: pipeline and AutoTokenizer, logits equal to 1e-4."""
    transformers = pytest.importorskip("transformers")
    out = bundle.build_model_folder(folder, tmp_path / "out", "me/m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    from data.tokenizer import CharTokenizer

    ids = tokenizer("ROMEO: what <b>")["input_ids"]
    assert ids == CharTokenizer.load(out).encode("ROMEO: what <b>")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        gap = (theirs(torch.tensor([ids])).logits - GPT.from_pretrained(out)(torch.tensor([ids]))[0]).abs().max()
    assert gap < 1e-4
    write = transformers.pipeline("text-generation", model=str(out))
    text = write("ROMEO:", max_new_tokens=12, do_sample=True)[0]["generated_text"]
    assert text.startswith("ROMEO:") and len(text) == 18


@pytest.mark.parametrize("chars, block_size", [(None, 16), ("\t\n abc", 8), ("\u0430\u0431\u0432 ", 64)])
def test_the_cards_own_snippet_runs(tmp_path, capsys, chars, block_size):
    """Catches a snippet that asks for more than the context holds, or begins with letters that this model lacks."""
    pytest.importorskip("transformers")
    made = tiny_folder(tmp_path / "m", block_size=block_size, **({"chars": chars} if chars else {}))
    out = bundle.build_model_folder(made, tmp_path / "out", "me/m")
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[1]
    assert "".join(json.loads((out / "notebook.ipynb").read_text())["cells"][1]["source"]) == code.strip()
    exec(code.replace('"me/m"', repr(str(out))), {})
    assert len(capsys.readouterr().out) > 1


def test_an_empty_prompt_begins_with_a_new_line(tmp_path):
    """Catches "!" or TAB before every text: id 0 of a vocabulary that does not begin with the newline."""
    out = bundle.build_model_folder(tiny_folder(tmp_path / "m", chars="\t\n abc"), tmp_path / "out", "me/m")
    assert json.loads((out / "generation_config.json").read_text())["bos_token_id"] == 1


def test_fresh_process_with_only_the_folder_gives_the_same_logits(folder, tmp_path):
    """Catches state that lives in the training process and not in the folder."""
    out = bundle.build_model_folder(folder, tmp_path / "out", "me/m")
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); from model_gpt2 import GPT\n"
        "m = GPT.from_pretrained(sys.argv[2]); torch.save(m(torch.arange(20)[None])[0].detach(), sys.argv[3])"
    )
    command = [sys.executable, "-c", code, ROOT, out, tmp_path / "logits.pt"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=500)
    with torch.no_grad():
        here = GPT.from_pretrained(folder)(torch.arange(20)[None])[0]
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), here)
