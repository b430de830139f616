"""Make it yours: a visitor signs in, and model and page go to a loopback Hub; in Chromium.

The page is served as a Space is: the Hub's variables stand at the head of index.html. Where it names the
Hub's address, it is given the loopback's, so that OAuth, CORS, LFS and the policy are the real ones.
"""

import json

import pytest
from hub_server import Hub
from pages import finished, needs_node, node, random_model, served, text_of, wait, whole_folder

from model_gpt2 import GPT
from space.ours import files_in, made_files

VARIABLES = '<head><script>window.huggingface={variables:{"OAUTH_CLIENT_ID":"space-7"}};</script>'
HUB = "https://huggingface.co"


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def space(hub, site, visit):
    """space(path) opens the page as a Space of the loopback Hub shows it."""
    patches = {"index.html": [(HUB, hub.url), ("<head>", VARIABLES)], "fetching.js": [(HUB, hub.url)],
               "signed_in.js": [("3000", "300")]}  # how long a stranger's window waits
    with served(site[1], patches=patches) as address:
        yield lambda path="/", **options: visit(path, address, **options)


def sign_in(page):
    page.click("#sign_in")
    page.wait_for_selector("#publish:visible")
    return page


def publish(page, name="my-gpt2", until="#yours_done:visible"):
    page.fill("#yours_name", name)
    page.click("#publish_go")
    page.wait_for_selector(until)
    return page.inner_text(until.split(":")[0])


def test_model_and_page_are_there_and_the_page_opens(hub, space, visit, site):
    """Something sent before the button, a token that stays, a file that does not travel, a second press.

    Also the Space's own variables in the copy, and a mark that Python does not read.
    """
    page = sign_in(space())
    assert page.inner_text("#yours_who") == "reader" and not hub.repos
    page.fill("#yours_name", "moon")
    assert page.inner_text("#publish_go") == "Publish reader/moon and reader/moon-page, for everybody"
    said = publish(page, "moon")
    assert f"{hub.url}/reader/moon" in said and f"{hub.url}/spaces/reader/moon-page" in said
    model, made = hub.repo("models", "reader/moon"), hub.repo("spaces", "reader/moon-page")
    assert not model.private and not made.private and made.sdk == "static"
    for repo, more in ((model, {".gitattributes"}), (made, {".gitattributes", "style.css"})):
        listed = made_files(repo.files["README.md"].decode())
        assert set(listed) <= set(repo.files) <= {*listed, *more}
    assert model.files["model.safetensors"] == (site[1] / "model/model.safetensors").read_bytes()
    assert {"tokenizer_config.json", "metrics.json", "ngram5.npz"} <= set(model.files)
    assert "space-7" not in made.files["index.html"].decode()
    front = made.files["README.md"].decode().split("---")[1]
    assert "hf_oauth: true" in front and '"reader/moon"' in front and 'sdk: "static"' in front
    assert {"train.html", "yours.js", "signed_in.html", "standin.txt", "model/moments/20/model.safetensors",
            "card.png"} <= set(made.files)  # fmt: skip
    kept = "JSON.stringify([localStorage, sessionStorage, location.href, document.cookie])"
    assert hub.token not in page.evaluate(kept) and not any(hub.token in seen for seen in hub.seen)
    other = visit("/live/reader/moon-page/", hub.url)
    assert text_of(other) == text_of(page) and other.inner_text("#title") == page.inner_text("#title")
    assert other.locator("#links a").first.get_attribute("href") == "train.html"
    before = len(model.commits)
    publish(page, "moon")
    assert len(model.commits) == before + 1  # the real Hub makes none where nothing changed


def test_a_dropped_folder_for_its_owner_alone(hub, space, visit, tmp_path, site):
    """The page's own model in place of the dropped one, its text, its paths, a public repo."""
    folder = whole_folder(tmp_path / "mine", random_model(seed=5), "their letters")
    facts = json.loads((folder / "metrics.json").read_text())
    facts["config"]["out_dir"] = "/home/anna/secret"
    (folder / "metrics.json").write_text(json.dumps(facts))
    random_model(seed=6).save_pretrained(folder / "moments/30")
    page = sign_in(space())
    page.set_input_files("#folder", folder)
    finished(page)
    page.check("[name=seen][value=private]")
    assert page.inner_text("#publish_go").endswith("for you alone")
    publish(page)
    model, made = hub.repo("models", "reader/my-gpt2"), hub.repo("spaces", "reader/my-gpt2-page")
    assert model.private and made.private
    everything = b"".join([*model.files.values(), *made.files.values()])
    assert b"/home/anna" not in everything and "card.png" not in made.files
    hub.write_tree("models", "reader/my-gpt2", tmp_path / "got")
    assert files_in(tmp_path / "got") and GPT.from_pretrained(tmp_path / "got").config.n_layer == 3
    assert (tmp_path / "got/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    other = visit("/live/reader/my-gpt2-page/", hub.url)
    finished(other)
    assert other.inner_text("#title") == "mine" and other.is_visible("#past")
    assert "model/moments/30/model.safetensors" in made.files
    assert "their letters" in other.inner_text("#card")
    assert text_of(other) == text_of(page)


REFUSED = {400: "did not take", 402: "paid plan for reader/my-gpt2:", 403: "allow this page to manage",
           409: "reader/my-gpt2 is taken", 412: "at the same moment", 429: "a few minutes",
           500: "answered 500"}


@needs_node
def test_answers_of_the_hub_become_sentences():
    """A status's number or an engine's own words in place of what to do."""
    said = node("static_node.mjs", job={"do": "refusals", "statuses": list(REFUSED)})
    for status, words in REFUSED.items():
        assert words in said[str(status)] and said[str(status)].endswith("."), status


def test_what_goes_wrong_is_one_sentence_and_can_be_tried_again(hub, space):
    """An engine's own words, a page that hangs, a repo that is half there and then not ours."""
    page = sign_in(space())
    for method, pattern, fault, words in [
        ("POST", "/preupload/", {"status": 401}, "run out"),
        ("PUT", "/lfs/", {"status": 413}, "larger than the Hub takes"),
        ("PUT", "/lfs/", {"cut_after": 100, "times": 3}, "could not be reached"),
    ]:
        hub.fail(method, pattern, **fault)
        said = publish(page, until="#yours_said:visible")
        hub.faults.clear()
        assert words in said and said.endswith(".") and "\n" not in said, said
        if "run out" in said:
            sign_in(page)
    publish(page)  # it goes on where it stopped
    assert "model.safetensors" in hub.repo("models", "reader/my-gpt2").files


def test_what_is_not_ours_is_left_alone(hub, space):
    """A stranger's files written over, a visibility that changes unasked, a name that the Hub refuses."""
    page = sign_in(space())
    publish(page)
    page.check("[name=seen][value=private]")
    assert "already, and public" in publish(page, until="#yours_said:visible")
    page.check("[name=seen][value=public]")
    theirs = hub.repo("spaces", "reader/my-gpt2-page")
    theirs.commits.append(("1" * 40, "my own", {"README.md": b"mine"}))
    model = hub.repo("models", "reader/my-gpt2")
    before = len(model.commits)
    said = publish(page, until="#yours_said:visible")
    assert "reader/my-gpt2-page is there already, and this page did not make it" in said
    assert theirs.files == {"README.md": b"mine"} and len(model.commits) == before
    for name in ("a b", "x--y", "-x", "x" * 96):
        assert "name" in publish(page, name, until="#yours_said:visible").lower()


def test_signing_in(hub, space, visit):
    """A cancelled sign-in that waits for ever, a right that was not given, a code of another window."""
    page = space()
    hub.denies = True
    page.click("#sign_in")
    wait(page, "document.getElementById('yours_said').textContent.startsWith('You did not sign in')")
    hub.denies, hub.scope = False, "openid profile"
    page.click("#sign_in")
    wait(page, "document.getElementById('yours_said').textContent.includes('allow this page')")
    hub.scope = None
    page.route("**/style.css", lambda route: route.abort())
    page.context.route(f"{hub.url}/oauth/authorize**", lambda route: route.abort())
    page.click("#sign_in")  # a window that never comes back
    stranger = page.context.new_page()
    stranger.goto(page.url + "signed_in.html?code=x&state=y")
    stranger.get_by_text("No page waits").wait_for()
    assert "code" not in stranger.url and page.is_hidden("#publish")
    page.context.unroute(f"{hub.url}/oauth/authorize**")
    sign_in(page)
    page.click("#sign_out")
    assert page.is_hidden("#publish") and page.is_visible("#sign_in")


def test_where_nobody_can_sign_in_and_in_a_frame_on_the_hub(visit, site, space):
    """A button that cannot work: outside a Space, in the Hub's frame; a page that works only alone."""
    page = visit()
    page.wait_for_selector("#elsewhere:visible")
    assert page.is_hidden("#sign_in") and "gpt2_gradio.ipynb" in page.inner_text("#elsewhere")
    framed = space()
    host, own = framed.url, framed.url.replace("127.0.0.1", "localhost")
    framed.goto(f"{host}model/config.json")
    sandbox = "allow-scripts allow-same-origin allow-forms allow-popups"
    frame = f'<iframe width=1000 height=800 sandbox="{sandbox}" src="{own}"></iframe>'
    framed.evaluate("html => { document.body.innerHTML = html; }", frame)
    inside = framed.frame_locator("iframe")
    inside.locator("#own_tab a").wait_for()
    assert inside.locator("#own_tab a").get_attribute("href") == own
    assert not inside.locator("#sign_in").is_visible()
    inside.locator("#go").click()
    inside.locator("#text .ch").nth(12).wait_for()
    inside.locator("#stop").click()
    inside.locator("#text .ch").nth(9).click()
    inside.locator("#bars li").first.wait_for()
