"""A Hub on this machine that speaks the real protocol to the real `huggingface_hub` client.

    with Hub() as hub:
        publish_model(folder, "reader/model", endpoint=hub.url, token=hub.token)

It knows whoami, repo create and settings, preupload, LFS batch and PUT, commit, resolve, Space runtime
and logs, and serves a static Space live. `hub.fail(...)` answers a coming request with an error or cuts
its connection; `hub.seen` is the list of requests. Xet is not spoken: set HF_HUB_DISABLE_XET=1 before
huggingface_hub is imported.
"""

import base64
import contextlib
import hashlib
import json
import mimetypes
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import yaml

FOR_PAGES = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, POST, PUT",
             "Access-Control-Allow-Headers": "Authorization, Content-Type"}
LFS_ABOVE = 100_000  # bytes; the real Hub goes by type and size too


def git_oid(data: bytes) -> str:
    """The name that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def oid_of(data: bytes) -> str:
    """The name of a file on the Hub: git's, or SHA-256 in LFS."""
    return hashlib.sha256(data).hexdigest() if len(data) > LFS_ABOVE else git_oid(data)


def asks_private(ask: dict) -> bool:
    """Old and new clients spell it differently."""
    return ask.get("visibility") == "private" or bool(ask.get("private"))


@dataclass
class Repo:
    """One repository: its commits, newest last; a commit is (id, message, {path: bytes})."""

    sdk: str | None = None
    hardware: str | None = None
    private: bool = False
    secrets: list = field(default_factory=list)
    commits: list = field(default_factory=lambda: [("0" * 40, "initial commit", {".gitattributes": b""})])
    stages: list = field(default_factory=list)  # what the runtime will say next; the last one stays
    host: str | None = None

    @property
    def files(self) -> dict:
        return self.commits[-1][2]

    def at(self, revision: str):
        """(id, files) of a branch name or a commit id, or None."""
        if revision == "main":
            return self.commits[-1][0], self.files
        return next(((sha, files) for sha, _, files in self.commits if sha == revision), None)


@dataclass
class Fault:
    """Something that goes wrong on purpose."""

    method: str
    pattern: str
    status: int = 500
    times: int = 1
    cut_after: int | None = None  # bytes of the body to read before the line goes dead


class Hub:
    """A loopback Hub. `users`: token -> {name, role, paid, verified}. `build_log`: a Space's own."""

    token = "hf_loopback_write_0123456789"
    read_token = "hf_loopback_read_0123456789"

    def __init__(self):
        owner = {"name": "reader", "role": "write", "paid": False, "verified": True}
        self.users = {self.token: owner, self.read_token: {**owner, "role": "read"}}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.grants: dict[str, dict] = {}  # code -> what was asked for when the visitor signed in
        self.denies = False  # the visitor presses Cancel
        self.scope = None  # what he allows; None: all that was asked for
        self.build_log = ["Step 1/3 : FROM python\n", "Step 2/3 : pip install\n"]
        self.next_stages = ["BUILDING", "APP_STARTING", "RUNNING"]
        self.lock = threading.Lock()
        for name in ("no_proxy", "NO_PROXY"):  # a proxy of the network does not know this machine
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))

    def start(self):
        """Serve until `stop`; returns the Hub, which then has a `url`."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answers,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self, *_):
        self.server.shutdown()
        self.server.server_close()

    __enter__, __exit__ = start, stop

    def prepare_client(self):
        """Make this process's client speak LFS and no Xet, without bars and warnings; returns the Hub."""
        from huggingface_hub import constants, utils

        constants.HF_HUB_DISABLE_XET = True
        utils.disable_progress_bars()
        utils.logging.set_verbosity_error()
        return self

    def fail(self, method: str, pattern: str, status: int = 500, times: int = 1,
             cut_after: int | None = None):
        """Let the next `times` requests that match go wrong."""
        self.faults.append(Fault(method, pattern, status, times, cut_after))

    def repo(self, kind: str, name: str) -> Repo:
        """A repo that must exist; kind is "models" or "spaces"."""
        return self.repos[(kind, name)]

    def write_tree(self, kind: str, name: str, folder) -> Path:
        """Put a repo's newest files into a folder, as the machine that runs a Space would."""
        for path, data in self.repo(kind, name).files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return Path(folder)


ROUTES = []


def route(methods: str, pattern: str):
    """Register a method of Answers; R in the pattern is a repo: models or spaces, owner/name."""
    pattern = pattern.replace("R", r"(models|spaces)/([^/]+/[^/]+)").replace("S", r"([^/]+/[^/]+)")

    def register(answer):
        ROUTES.append((methods.split(), pattern, answer))
        return answer

    return register


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        fault = next((fault for fault in self.hub.faults if fault.times and fault.method == self.command
                      and re.search(fault.pattern, path)), None)
        if fault:
            fault.times -= 1
            if fault.cut_after is not None:
                return self.cut(fault.cut_after)
        self.body = self.read_body()
        if fault:
            return self.json({"error": "made to fail"}, fault.status)
        for methods, pattern, answer in ROUTES:
            if self.command in methods and (match := re.fullmatch(pattern, path)):
                with self.hub.lock:
                    return answer(self, *match.groups())
        self.json({"error": f"no such address {path}"}, 404)

    do_POST = do_PUT = do_HEAD = do_GET

    def do_OPTIONS(self):
        """A browser asks whether a page may."""
        self.send(b"")

    def cut(self, after: int):
        self.rfile.read(min(after, int(self.headers.get("Content-Length") or after)))
        self.hub.seen.append(f"{self.command} {self.path} cut")
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, data: bytes, status=200, kind="application/octet-stream", **headers):
        self.hub.seen.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        headers |= {"Content-Type": kind, "Content-Length": str(len(data))} | FOR_PAGES
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self, value, status=200, **headers):
        self.send(json.dumps(value).encode(), status, "application/json", **headers)

    def user(self):
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def writer(self, name: str):
        """The user, if he may write to `name`; otherwise answers 401 or 403."""
        user = self.user()
        if user is None:
            return self.json({"error": "Invalid username or password."}, 401)
        if user["role"] == "read" or name.split("/")[0] != user["name"]:
            return self.json({"error": "You don't have the rights to do this"}, 403)
        return user

    def find(self, kind: str, name: str):
        """The repo, unless it is not there or private to someone else: then the answer is sent already."""
        repo, user = self.hub.repos.get((kind, name)), self.user()
        if repo is None or (repo.private and (user is None or name.split("/")[0] != user["name"])):
            status = 404 if user else 401
            return self.json({"error": "Repository not found"}, status, X_Error_Code="RepoNotFound")
        return repo

    def to_change(self, kind: str, name: str):
        """The repo, if the user may write to it."""
        return self.writer(name) and self.find(kind, name)

    # ---- who, and what there is

    @route("GET", "/api/whoami-v2")
    def whoami(self):
        if (user := self.user()) is None:
            return self.json({"error": "Invalid credentials in Authorization header"}, 401)
        auth = {"type": "access_token", "accessToken": {"displayName": "t", "role": user["role"]}}
        self.json({"type": "user", "name": user["name"], "orgs": [], "auth": auth})

    @route("POST", "/api/repos/create")
    def create(self):
        ask, user = json.loads(self.body), self.user()
        kind = ask.get("type", "model") + "s"
        name = f"{ask.get('organization') or user['name']}/{ask['name']}"
        if not self.writer(name):
            return
        if (kind, name) in self.hub.repos:
            return self.json({"error": "You already created this repo"}, 409)
        free = ask.get("hardware") == "zero-a10g" and user["verified"]
        if ask.get("sdk") == "gradio" and not user["paid"] and not free:
            return self.json({"error": "Payment required"}, 402)
        repo = Repo(ask.get("sdk"), ask.get("hardware"), asks_private(ask), ask.get("secrets") or [])
        if kind == "spaces":  # what the real Hub puts into a new one
            repo.files["README.md"] = f"---\nsdk: {ask['sdk']}\n---\n".encode()
            repo.files.update({"index.html": b"<p>hello"} if ask["sdk"] == "static" else {})
        self.hub.repos[(kind, name)] = repo
        self.json({"url": f"{self.hub.url}/{'spaces/' if kind == 'spaces' else ''}{name}", "id": name})

    @route("PUT", "/api/R/settings")
    def settings(self, kind, name):
        if repo := self.to_change(kind, name):
            repo.private = asks_private(json.loads(self.body))
            self.json({"private": repo.private})

    @route("GET", "/api/R(?:/revision/([^/]+))?")
    def info(self, kind, name, revision):
        if not (repo := self.find(kind, name)):
            return
        sha, files = repo.at(revision or "main")
        facts = {"id": name, "sha": sha, "private": repo.private, "tags": [],
                 "siblings": [{"rfilename": path} for path in files]}
        if kind == "spaces":
            facts |= {"sdk": repo.sdk, "host": repo.host or f"{self.hub.url}/live/{name}"}
        self.json(facts)

    @route("GET", "/api/R/commits/[^/]+")
    def history(self, kind, name):
        if repo := self.find(kind, name):
            same = {"message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
            self.json([{"id": sha, "title": title, **same} for sha, title, _ in reversed(repo.commits)])

    @route("POST", "/api/spaces/S/secrets")
    def secret(self, name):
        if repo := self.to_change("spaces", name):
            repo.secrets.append(json.loads(self.body))
            self.json({})

    @route("GET", "/api/R/tree/([^/]+)/?")
    def tree(self, kind, name, revision):
        if repo := self.find(kind, name):
            rows = []
            for path, data in repo.at(revision)[1].items():
                lfs = {"lfs": {"oid": oid_of(data), "size": len(data), "pointerSize": 130}}
                rows.append({"type": "file", "path": path, "size": len(data), "oid": git_oid(data),
                             **(lfs if len(data) > LFS_ABOVE else {})})
            self.json(rows)

    # ---- signing in from a page: OAuth's authorization code with PKCE

    @route("GET", "/oauth/authorize")
    def authorize(self):
        ask = dict(parse_qsl(urlsplit(self.path).query))
        assert ask["response_type"] == "code" and ask["code_challenge_method"] == "S256" and ask["client_id"]
        code = f"code{len(self.hub.grants)}"
        self.hub.grants[code] = ask
        answer = {"error": "access_denied"} if self.hub.denies else {"code": code}
        address = f"{ask['redirect_uri']}?{urlencode(answer | {'state': ask['state']})}"
        self.send(b"", 302, Location=address, Cross_Origin_Opener_Policy="same-origin")

    @route("POST", "/oauth/token")
    def oauth_token(self):
        form = dict(parse_qsl(self.body.decode()))
        grant = self.hub.grants.pop(form["code"], {})  # a code is good once
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        told = {name: form[name] for name in ("client_id", "redirect_uri")} | {"code_challenge": challenge}
        if any(grant.get(name) != value for name, value in told.items()):
            return self.json({"error": "invalid_grant"}, 400)
        self.json({"access_token": self.hub.token, "expires_in": 28800, "token_type": "bearer",
                   "scope": grant["scope"] if self.hub.scope is None else self.hub.scope})

    @route("GET", "/oauth/userinfo")
    def userinfo(self):
        if (user := self.user()) is None:
            return self.json({"error": "Invalid token"}, 401)
        self.json({"sub": "1", "preferred_username": user["name"], "name": user["name"]})

    # ---- uploads

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self):
        errors = []
        try:
            assert isinstance(yaml.safe_load(json.loads(self.body)["content"].split("---\n")[1]), dict)
        except (IndexError, AssertionError, yaml.YAMLError) as error:
            errors = [{"message": f"not YAML: {error}"}]
        self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    @route("POST", "/api/R/preupload/[^/]+")
    def preupload(self, kind, name):
        if not (repo := self.to_change(kind, name)):
            return
        answer = []
        for ask in json.loads(self.body)["files"]:
            mode, old = "lfs" if ask["size"] > LFS_ABOVE else "regular", repo.files.get(ask["path"])
            row = {"path": ask["path"], "uploadMode": mode, "shouldIgnore": False}
            answer.append(row if old is None else {**row, "oid": oid_of(old)})
        self.json({"files": answer})

    @route("POST", r"/(?:spaces/)?S\.git/info/lfs/objects/batch")
    def lfs_batch(self, name):
        if not self.writer(name):
            return
        rows = [{"oid": ask["oid"], "size": ask["size"]} for ask in json.loads(self.body)["objects"]]
        for row in rows:
            if row["oid"] not in self.hub.blobs:
                row["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{row['oid']}"}}
        self.json({"transfer": "basic", "objects": rows})

    @route("PUT", "/lfs/([0-9a-f]{64})")
    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.json({"error": "the bytes do not have this hash"}, 400)
        self.hub.blobs[oid] = self.body
        self.send(b"")

    @route("POST", "/api/R/commit/[^/]+")
    def commit(self, kind, name):
        if not (repo := self.to_change(kind, name)):
            return
        files, steps = dict(repo.files), [json.loads(line) for line in self.body.decode().splitlines()]
        for key, value in ((step["key"], step["value"]) for step in steps):
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repo.commits[-1][0]):
                    return self.json({"error": "The branch was updated since you last looked"}, 412)
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] in self.hub.blobs:
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                return self.json({"error": f"LFS object {value['oid']} is missing"}, 400)
        sha = hashlib.sha1(f"{len(repo.commits)}{name}{message}".encode()).hexdigest()
        repo.commits.append((sha, message, files))
        if b"\nsdk:" in files.get("README.md", b""):
            repo.sdk = yaml.safe_load(files["README.md"].decode().split("---\n")[1])["sdk"]
        repo.stages = list(self.hub.next_stages) if repo.sdk != "static" else ["RUNNING"]
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha,
                   "pullRequestUrl": None})

    # ---- downloads

    @route("GET HEAD", "/(spaces/)?S/resolve/([^/]+)/(.+)")
    def resolve(self, prefix, name, revision, path):
        if not (repo := self.find("spaces" if prefix else "models", name)):
            return
        sha, files = repo.at(revision) or ("", {})
        if path not in files:
            return self.json({"error": f"{path} is not there"}, 404, X_Error_Code="EntryNotFound")
        data, oid = files[path], oid_of(files[path])
        if len(data) <= LFS_ABOVE:
            return self.send(data, X_Repo_Commit=sha, ETag=f'"{oid}"')
        # large files lie on another host, as on the Hub
        store = self.hub.url.replace("127.0.0.1", "localhost")
        self.send(b"", 302, Location=f"{store}/lfs/{oid}", X_Repo_Commit=sha, X_Linked_ETag=f'"{oid}"',
                  X_Linked_Size=str(len(data)))

    @route("GET HEAD", "/lfs/([0-9a-f]{64})")
    def lfs_get(self, oid):
        self.send(self.hub.blobs.get(oid, b""), 200 if oid in self.hub.blobs else 404, ETag=f'"{oid}"')

    # ---- Spaces

    @route("GET", "/api/spaces/S/runtime")
    def runtime(self, name):
        if repo := self.find("spaces", name):
            stage = repo.stages.pop(0) if len(repo.stages) > 1 else (repo.stages or ["NO_APP_FILE"])[0]
            hardware = {"current": repo.hardware, "requested": repo.hardware}
            self.json({"stage": stage, "hardware": hardware, "sha": repo.commits[-1][0], "gcTimeout": None})

    @route("POST", "/api/spaces/S/hardware")
    def hardware(self, name):
        if repo := self.to_change("spaces", name):
            repo.hardware = json.loads(self.body)["flavor"]
            self.json({"stage": "BUILDING", "hardware": {"current": None, "requested": repo.hardware}})

    @route("GET", "/api/spaces/S/logs/(?:build|run)")
    def logs(self, _):
        events = [{"data": line, "timestamp": "2026-01-01T00:00:00.000Z"} for line in self.hub.build_log]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.send(text.encode(), kind="text/event-stream")

    @route("GET HEAD", "/live/S/?(.*)")
    def live(self, name, path):
        repo, path = self.hub.repos.get(("spaces", name)), path or "index.html"
        if repo is None or path not in repo.files:
            return self.send(b"not found", 404, "text/plain")
        kind = "text/javascript" if path.endswith(".js") else mimetypes.guess_type(path)[0]
        self.send(repo.files[path], kind=kind or "application/octet-stream")
