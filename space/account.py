"""Who publishes: the token and where it was found, the Hub's client, and its errors as one sentence each.

A token is looked for in the environment, in Colab's and Kaggle's secrets and where `hf auth login` put it; it
never appears in what is said, and goes to the Hub alone.
"""

import contextlib
import os
import sys
from importlib import import_module
from urllib.parse import urlsplit

from data.files import say

HUB = "https://huggingface.co"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class PublishError(ValueError):
    """What went wrong and what to do about it, in one sentence."""


# ---- the token

def find_token(token: str | None = None) -> tuple[str | None, str]:
    """(token, where it was found): argument, HF_TOKEN, Colab's secret, Kaggle's secret, `hf auth login`."""
    places = {
        "the argument": lambda: token,
        "HF_TOKEN": lambda: os.environ.get("HF_TOKEN"),
        "Colab's secret HF_TOKEN": lambda: import_module("google.colab").userdata.get("HF_TOKEN"),
        "Kaggle's secret HF_TOKEN":
            lambda: import_module("kaggle_secrets").UserSecretsClient().get_secret("HF_TOKEN"),
        "hf auth login": lambda: import_module("huggingface_hub").get_token(),
    }
    for where, look in places.items():
        with contextlib.suppress(Exception):  # not there, or not to be read: each place has its own errors
            if found := (look() or "").strip():
                return found, where
    return None, "nowhere"


def without_reader() -> bool:
    """Whether nobody sits before this run: the runner of notebooks says so, CI, or a trial run."""
    return bool(os.environ.get("GPT2_HEADLESS") or os.environ.get("CI") or os.environ.get("QUICK") == "1")


def may_publish(wanted: bool, own_model: bool = True) -> tuple[bool, str]:
    """(whether a notebook may send anything, why not): only if the reader said so, his own model, a token."""
    if without_reader():
        return False, "this is a run without a reader"
    if not wanted:
        return False, "PUBLISH is False"
    if not own_model:
        return False, "this is the project's own model, not yours"
    return (True, "") if find_token()[0] else (False, "no token was found")


# ---- the account

class Account:
    """The Hub's client, with a token that may write; errors of the Hub become PublishError.

    dry_run: nobody is asked for anything, and no token is needed.
    """

    def __init__(self, token: str | None = None, endpoint: str | None = None, dry_run: bool = False):
        from huggingface_hub import HfApi, constants

        self.token, self.where = find_token(token)
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.api = HfApi(endpoint=self.endpoint, token=self.token or False, library_name="gpt2-from-scratch")
        self.name, self.orgs = "", []
        if not dry_run:
            self.sign_in(rehearsal=endpoint and urlsplit(self.endpoint).hostname in LOOPBACK)

    def announce(self) -> None:
        """Say where the token goes, unless to the Hub."""
        if self.endpoint != HUB and self.token:
            place = urlsplit(self.endpoint)
            unsafe = "" if place.scheme == "https" else ", unencrypted"
            say(f"Note: this is not the Hub itself. Token and model go to {place.hostname}{unsafe} "
                "(HF_ENDPOINT).")

    def sign_in(self, rehearsal: bool) -> None:
        """Ask whose token it is and whether it may write."""
        if os.environ.get("GPT2_HEADLESS") and urlsplit(self.endpoint).hostname not in LOOPBACK:
            raise PublishError(HEADLESS)
        if self.token is None:
            raise PublishError(NO_TOKEN)
        if not rehearsal:  # that announces itself
            self.announce()
        me = self.ask("signing in", self.api.whoami)
        self.name, self.orgs = me["name"], [org["name"] for org in me.get("orgs", [])]
        if ((me.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            raise PublishError(f"The token from {self.where} may only read: make one of the kind Write at "
                               f"{HUB}/settings/tokens.")

    def ask(self, doing: str, call, *args, target: str | None = None, **kwargs):
        """Call the client; whatever it raises becomes one sentence without the token."""
        leave_closed_pipes()
        try:
            return call(*args, **kwargs)
        except Exception as error:  # the client has a dozen kinds
            sentence = explain(error, doing, self.where if self.token else None, target)
            raise PublishError(sentence.replace(self.token or "\0", "[token]")) from None

    def full_name(self, repo_id: str) -> str:
        """`name` or `owner/name` -> `owner/name`, checked before anything is sent."""
        owner, _, name = repo_id.rpartition("/")
        check_name(f"{owner or self.name or 'you'}/{name}")
        if not self.name:  # a dry run
            return repo_id
        if owner and owner not in (self.name, *self.orgs):
            raise PublishError(f"{repo_id} belongs to {owner}, and you are {self.name}: publish to "
                               f"{self.name}/{name} instead.")
        return f"{owner or self.name}/{name}"


def leave_closed_pipes() -> None:
    """A console that is gone stays gone: the client's bars flush it, and that would end an upload."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):
            setattr(sys, name, open(os.devnull, "w"))


def check_name(repo_id: str) -> None:
    """PublishError unless the Hub would take this as owner/name, by its client's own rules."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if len(repo_id) > 96:
        raise PublishError(f"{repo_id[:20]}... is too long for a repo: {len(repo_id)} characters, 96 are "
                           "allowed.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise PublishError(f"{repo_id!r} is no name for a repo: use owner/name with letters, digits, "
                           "single - and . and _, no spaces.") from None


# ---- errors as sentences

NO_TOKEN = (
    "No token: make one with the right to write at https://huggingface.co/settings/tokens, then keep it "
    "as the secret HF_TOKEN (Colab: the key on the left; Kaggle: Add-ons, Secrets) or run `hf auth login`."
)
HEADLESS = ("Nothing is published by a run without a reader (GPT2_HEADLESS is set): run the notebook by "
            "hand, or type the command yourself.")
CHANGED = "The repo was changed by someone else at the same moment: run this again."
ANSWERS = {
    400: "The Hub did not take what was sent: look at the folder with --dry-run.",
    401: "The Hub does not know the token from SIGN_IN: it is mistyped or was revoked, make a new one at "
         f"{HUB}/settings/tokens.",
    403: "The token from SIGN_IN may not write there: give it the right Write, or publish under your own "
         "name.",
    404: "The Hub has no such repo: check the name's spelling, and that the model is published before its "
         "Space.",
    409: CHANGED,
    412: CHANGED,
    429: "The Hub asks for a pause, there were too many requests: run this again in a few minutes.",
}
PAYMENT = {
    "zero-a10g": "The Hub wants a paid plan for this Space (402): ZeroGPU is free only for a verified "
                 "account older than 30 days and for two Spaces; choose target='static', which is free for "
                 "everybody.",
    "static": f"The Hub wants a paid plan even for a static Space (402): see {HUB}/settings/billing for "
              "what your account may still hold; private=True counts there too.",
}
OTHER_PAYMENT = ("The Hub wants a paid plan for a Space on TARGET (402): since July 2026 a free account "
                 "cannot make one; choose target='static' (free for everybody) or 'zero-a10g' (free for a "
                 "verified account older than 30 days).")


def explain(error: Exception, doing: str, where: str | None = None, target: str | None = None) -> str:
    """One sentence for an error of the client: what happened, what to do. where: the token's place."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 and where is None:
        status = 404  # what a nameless visitor hears of a missing repo
    if status in ANSWERS:
        return f"{ANSWERS[status]} (The Hub answered {status} while {doing}.)".replace("SIGN_IN", str(where))
    if status == 402:
        return PAYMENT.get(target, OTHER_PAYMENT).replace("TARGET", target or "this hardware")
    if status is not None and status >= 500:
        return (f"The Hub itself has a problem (it answered {status} while {doing}): run this again in a "
                "few minutes.")
    if is_network(error):
        return (f"No connection to the Hub while {doing}: check the network (in a notebook, turn on "
                "Internet in the settings) and run this again; files that arrived whole are not sent again.")
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"It failed while {doing}: {first}"


def is_network(error: BaseException | None) -> bool:
    """Whether a connection failed somewhere behind this error; the client's HTTP library changes its name."""
    libraries = ("httpx", "httpcore", "requests", "urllib3")
    return error is not None and (type(error).__module__.startswith(libraries)
                                  or isinstance(error, (ConnectionError, TimeoutError))
                                  or is_network(error.__cause__ or error.__context__))
