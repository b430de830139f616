"""Who publishes: the token and where it was found, the Hub's client, and its errors as one sentence each.

A token is looked for in the environment, in Colab's and Kaggle's secrets and where `hf auth login` put it; it never
appears in what is said, and goes to the Hub alone.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from data.files import say as show

HUB = "https://huggingface.co"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class PublishError(ValueError):
    """What went wrong and what to do about it, in one sentence."""


def find_token(token: str | None = None) -> tuple[str | None, str]:
    """(token, where it was found): argument, HF_TOKEN, Colab's secret, Kaggle's secret, `hf auth login`."""
    sources = [("the argument", lambda: token), ("HF_TOKEN", lambda: os.environ.get("HF_TOKEN")),
               ("Colab's secret HF_TOKEN", _colab_secret), ("Kaggle's secret HF_TOKEN", _kaggle_secret),
               ("hf auth login", _stored_token)]  # fmt: skip
    for where, look in sources:
        try:
            found = (look() or "").strip()
        except Exception:  # not there, or this notebook may not read it: each place has its own kinds of error
            continue
        if found:
            return found, where
    return None, "nowhere"


def _colab_secret():
    from google.colab import userdata

    return userdata.get("HF_TOKEN")


def _kaggle_secret():
    from kaggle_secrets import UserSecretsClient

    return UserSecretsClient().get_secret("HF_TOKEN")


def _stored_token():
    from huggingface_hub import get_token

    return get_token()


NO_TOKEN = (
    "No token: make one with the right to write at https://huggingface.co/settings/tokens, then keep it as the secret "
    "HF_TOKEN (Colab: the key on the left; Kaggle: Add-ons, Secrets) or run `hf auth login`."
)
HEADLESS = (
    "Nothing is published by a run without a reader (GPT2_HEADLESS is set): run the notebook by hand, or type the "
    "command yourself."
)


def without_reader() -> bool:
    """Whether nobody sits before this run: the runner of notebooks says so, CI, or a trial run."""
    return bool(os.environ.get("GPT2_HEADLESS") or os.environ.get("CI") or os.environ.get("QUICK") == "1")


def may_publish(wanted: bool, own_model: bool = True) -> tuple[bool, str]:
    """(whether a notebook may send anything, why not): only if the reader said so, with his own model and a token."""
    if without_reader():
        return False, "this is a run without a reader"
    if not wanted:
        return False, "PUBLISH is False"
    if not own_model:
        return False, "this is the project's own model, not yours"
    return (True, "") if find_token()[0] else (False, "no token was found")


class Account:
    """The Hub's client with a token that may write; errors of the Hub become PublishError."""

    def __init__(self, token: str | None = None, endpoint: str | None = None, say=show):
        from huggingface_hub import HfApi, constants

        self.token, self.where = find_token(token)
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        place = urlsplit(self.endpoint)
        if os.environ.get("GPT2_HEADLESS") and place.hostname not in LOOPBACK:
            raise PublishError(HEADLESS)
        if self.token is None:
            raise PublishError(NO_TOKEN)
        if self.endpoint != HUB and not (endpoint and place.hostname in LOOPBACK):  # a rehearsal announces itself
            unsafe = "" if place.scheme == "https" else ", unencrypted"
            say(f"Note: this is not the Hub itself. Token and model go to {place.hostname}{unsafe} (HF_ENDPOINT).")
        self.api = HfApi(endpoint=self.endpoint, token=self.token, library_name="gpt2-from-scratch")
        me = self.ask("signing in", self.api.whoami)
        self.name, self.orgs = me["name"], [org["name"] for org in me.get("orgs", [])]
        role = ((me.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            raise PublishError(
                f"The token from {self.where} may only read: make one of the kind Write at {HUB}/settings/tokens."
            )

    def ask(self, doing: str, call, *args, target: str | None = None, **kwargs):
        """Call the client; whatever it raises becomes one sentence without the token."""
        try:
            return call(*args, **kwargs)
        except PublishError:
            raise
        except Exception as error:
            sentence = explain(error, doing, self.where, target)
            raise PublishError(sentence.replace(self.token, "[token]")) from None

    def full_name(self, repo_id: str) -> str:
        """`name` or `owner/name` -> `owner/name`, checked before anything is sent."""
        owner, _, name = repo_id.rpartition("/")
        full = f"{owner or self.name}/{name}"
        check_name(full)
        if owner and owner not in (self.name, *self.orgs):
            raise PublishError(
                f"{repo_id} belongs to {owner}, and you are {self.name}: publish to {self.name}/{name} instead."
            )
        return full


def check_name(repo_id: str) -> None:
    """Raise PublishError unless the Hub would take this as a name: owner/name, letters, digits, - _ . in each."""
    if len(repo_id) > 96:
        raise PublishError(f"{repo_id[:20]}... is too long for a repo: {len(repo_id)} characters, 96 are allowed.")
    part = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
    bad = not re.fullmatch(rf"{part}/{part}", repo_id) or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git")
    if bad:
        raise PublishError(
            f"{repo_id!r} is no name for a repo: use owner/name with letters, digits, single - and . and _, no spaces."
        )


def explain(error: Exception, doing: str, where: str | None = None, target: str | None = None) -> str:
    """One sentence for an error of the client: what happened, and what to do. where: the token's place, if any."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    status = 404 if status == 401 and where is None else status  # what a nameless visitor is told of a missing repo
    if status in SENTENCES:
        return f"{SENTENCES[status]} (The Hub answered {status} while {doing}.)".replace("SIGN_IN", str(where))
    if status == 402:
        return PAYMENT.get(target, PAYMENT["other"]).replace("TARGET", target or "this hardware")
    if status is not None and status >= 500:
        return f"The Hub itself has a problem (it answered {status} while {doing}): run this again in a few minutes."
    if _is_network(error):
        return (
            f"No connection to the Hub while {doing}: check the network (in a notebook, turn on Internet in the "
            "settings) and run this again; files that arrived whole are not sent again."
        )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"It failed while {doing}: {first}"


CHANGED = "The repo was changed by someone else at the same moment: run this again."
SENTENCES = {
    400: "The Hub did not take what was sent: look at the folder with --dry-run.",
    401: "The Hub does not know the token from SIGN_IN: it is mistyped or was revoked, make a new one at "
    f"{HUB}/settings/tokens.",
    403: "The token from SIGN_IN may not write there: give it the right Write, or publish under your own name.",
    404: "The Hub has no such repo: check the name's spelling, and that the model is published before its Space.",
    409: CHANGED,
    412: CHANGED,
    429: "The Hub asks for a pause, there were too many requests: run this again in a few minutes.",
}
PAYMENT = {
    "zero-a10g": "The Hub wants a paid plan for this Space (402): ZeroGPU is free only for a verified account older "
    "than 30 days and for two Spaces; choose target='static', which is free for everybody.",
    "static": f"The Hub wants a paid plan even for a static Space (402): see {HUB}/settings/billing for what your "
    "account may still hold; private=True counts there too.",
    "other": "The Hub wants a paid plan for a Space on TARGET (402): since July 2026 a free account cannot make one; "
    "choose target='static' (free for everybody) or 'zero-a10g' (free for a verified account older than 30 days).",
}


def _is_network(error: BaseException | None) -> bool:
    """Whether a connection failed somewhere behind this error."""
    while error is not None:
        module, name = type(error).__module__.split(".")[0], type(error).__name__
        if isinstance(error, (ConnectionError, TimeoutError)) or name == "OfflineModeIsEnabled":
            return True
        if module.startswith("httpx") or module in ("requests", "httpcore", "urllib3"):
            return True
        error = error.__cause__ or error.__context__
    return False
