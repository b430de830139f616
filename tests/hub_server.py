"""A Hub on this machine that speaks the real protocol to the real `huggingface_hub` client.

    with Hub() as hub:
        publish_model(folder, "reader/model", endpoint=hub.url, token=hub.token)

It knows whoami, repo create and settings, preupload, LFS batch with PUT and verify, commit, resolve, Space runtime and
logs, and serves a static Space live. `hub.fail(...)` answers a coming request with an error or cuts its connection;
`hub.seen` is the list of requests. Xet is not spoken: set HF_HUB_DISABLE_XET=1 before huggingface_hub is imported.
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
from urllib.parse import unquote, urlsplit

import yaml

LFS_ABOVE = 100_000  # bytes; the real Hub goes by type and size too
API = r"/api/(models|spaces)/([^/]+/[^/]+)"


def asks_private(ask: dict) -> bool:
    """Old and new clients spell it differently."""
    return ask.get("visibility") == "private" or bool(ask.get("private"))


def lfs_of(data: bytes) -> dict:
    """What a listing adds for a file that lies in LFS."""
    oid = hashlib.sha256(data).hexdigest()
    return {"lfs": {"oid": oid, "size": len(data), "pointerSize": 130}} if len(data) > LFS_ABOVE else {}


def git_oid(data: bytes) -> str:
    """The name that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


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
    """A loopback Hub. `users`: token -> {name, role, paid, verified}. `build_log`: what a Space's build says."""

    token = "hf_loopback_write_0123456789"
    read_token = "hf_loopback_read_0123456789"

    def __init__(self, **user):
        owner = {"name": "reader", "role": "write", "paid": False, "verified": True, **user}
        self.users = {self.token: owner, self.read_token: {**owner, "role": "read"}}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.build_log = ["Step 1/3 : FROM python\n", "Step 2/3 : pip install\n"]
        self.next_stages = ["BUILDING", "APP_STARTING", "RUNNING"]
        for name in ("no_proxy", "NO_PROXY"):  # a proxy of the network does not know this machine
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
        self.lock = threading.Lock()

    def start(self):
        """Serve until `stop`; returns the Hub, which then has a `url`."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def prepare_client(self):
        """Make this process's client speak LFS and no Xet, without progress bars and warnings; returns the Hub."""
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_DISABLE_XET = True
        huggingface_hub.utils.disable_progress_bars()
        huggingface_hub.logging.set_verbosity_error()
        return self

    def fail(self, method: str, pattern: str, status: int = 500, times: int = 1, cut_after: int | None = None):
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def do_GET(self):
        self.answer()

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    # ---- plumbing

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        fault = self.take_fault(path)
        if fault and fault.cut_after is not None:
            self.cut(fault.cut_after)
            return
        self.body = self.read_body()
        if fault:
            self.json({"error": "made to fail"}, fault.status)
            return
        for method, pattern, handler in ROUTES:
            if (match := re.fullmatch(pattern, path)) and self.command in method:
                with self.hub.lock:
                    handler(self, *match.groups())
                return
        self.json({"error": f"no such address {path}"}, 404)

    def take_fault(self, path: str):
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.pattern, path):
                fault.times -= 1
                return fault
        return None

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
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self, value, status=200, **headers):
        self.send(json.dumps(value).encode(), status, "application/json", **headers)

    def user(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.hub.users.get(token)

    def writer(self, name: str | None = None):
        """The user, if he may write (to `name`); otherwise answers 401 or 403."""
        user = self.user()
        if user is None:
            return self.json({"error": "Invalid username or password."}, 401)
        if user["role"] == "read" or (name and name.split("/")[0] != user["name"]):
            return self.json({"error": "You don't have the rights to do this"}, 403)
        return user

    def find(self, kind: str, name: str):
        """The repo, unless it is not there or private to someone else: then the answer is sent already."""
        repo, user = self.hub.repos.get((kind, name)), self.user()
        if repo is None or (repo.private and (user is None or name.split("/")[0] != user["name"])):
            return self.json({"error": "Repository not found"}, 404 if user else 401, X_Error_Code="RepoNotFound")
        return repo

    def find_at(self, kind: str, name: str, revision: str):
        """(repo, commit id, files), or Nones after an answer."""
        if not (repo := self.find(kind, name)):
            return None, None, None
        if (found := repo.at(revision)) is None:
            self.json({"error": "Revision not found"}, 404, X_Error_Code="RevisionNotFound")
            return None, None, None
        return repo, *found

    # ---- who, and what there is

    def whoami(self):
        user = self.user()
        if user is None:
            return self.json({"error": "Invalid credentials in Authorization header"}, 401)
        auth = {"type": "access_token", "accessToken": {"displayName": "t", "role": user["role"]}}
        self.json({"type": "user", "name": user["name"], "orgs": [], "auth": auth})

    def create(self):
        ask = json.loads(self.body)
        kind = ask.get("type", "model") + "s"
        user = self.user()
        name = f"{ask.get('organization') or (user or {}).get('name')}/{ask['name']}"
        if not (user := self.writer(name)):
            return
        if (kind, name) in self.hub.repos:
            return self.json({"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}, 409)
        if kind == "spaces" and ask["sdk"] == "gradio" and not user["paid"]:
            if ask.get("hardware") != "zero-a10g" or not user["verified"]:
                return self.json({"error": "Payment required"}, 402)
        repo = Repo(ask.get("sdk"), ask.get("hardware"), asks_private(ask), ask.get("secrets") or [])
        if kind == "spaces":  # what the real Hub puts into a new one
            repo.files["README.md"] = f"---\nsdk: {ask['sdk']}\n---\n".encode()
            repo.files.update({"index.html": b"<p>hello", "style.css": b""} if ask["sdk"] == "static" else {})
        self.hub.repos[(kind, name)] = repo
        self.json({"url": f"{self.hub.url}/{'spaces/' if kind == 'spaces' else ''}{name}", "name": name, "id": name})

    def settings(self, kind, name):
        if self.writer(name) and (repo := self.find(kind, name)):
            repo.private = asks_private(json.loads(self.body))
            self.json({"private": repo.private})

    def info(self, kind, name, revision="main"):
        repo, sha, files = self.find_at(kind, name, revision)
        if repo is None:
            return
        size = sum(len(data) for _, _, tree in repo.commits for data in tree.values())
        facts = {"id": name, "sha": sha, "private": repo.private, "tags": [], "usedStorage": size,
                 "siblings": [{"rfilename": path} for path in files]}  # fmt: skip
        if kind == "spaces":
            facts |= {"sdk": repo.sdk, "host": repo.host or f"{self.hub.url}/live/{name}"}
        self.json(facts)

    def history(self, kind, name, revision):
        repo, *_ = self.find_at(kind, name, revision)
        if repo is not None:
            day = "2026-01-01T00:00:00.000Z"
            self.json([{"id": sha, "title": title, "message": "", "authors": [], "date": day}
                       for sha, title, _ in reversed(repo.commits)])  # fmt: skip

    def secret(self, name):
        if self.writer(name) and (repo := self.find("spaces", name)):
            repo.secrets.append(json.loads(self.body))
            self.json({})

    def tree(self, kind, name, revision):
        repo, _, files = self.find_at(kind, name, revision)
        if repo is not None:
            rows = [{"type": "file", "path": p, "size": len(d), "oid": git_oid(d)} for p, d in files.items()]
            self.json([row | lfs_of(files[row["path"]]) for row in rows])

    # ---- uploads

    def validate_yaml(self):
        try:
            front = yaml.safe_load(json.loads(self.body)["content"].split("---\n")[1])
            errors = [] if isinstance(front, dict) else [{"message": "no front matter"}]
        except (IndexError, yaml.YAMLError) as error:
            errors = [{"message": f"not YAML: {error}"}]
        self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, kind, name, _revision):
        if not self.find(kind, name) or not self.writer(name):
            return
        files, answer = self.hub.repo(kind, name).files, []
        for ask in json.loads(self.body)["files"]:
            mode = "lfs" if ask["size"] > LFS_ABOVE else "regular"
            row = {"path": ask["path"], "uploadMode": mode, "shouldIgnore": False}
            if (old := files.get(ask["path"])) is not None:
                row["oid"] = hashlib.sha256(old).hexdigest() if mode == "lfs" else git_oid(old)
            answer.append(row)
        self.json({"files": answer})

    def lfs_batch(self, _prefix, name):
        if not self.writer(name):
            return
        objects = []
        for ask in json.loads(self.body)["objects"]:
            row = {"oid": ask["oid"], "size": ask["size"]}
            if ask["oid"] not in self.hub.blobs:
                row["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{ask['oid']}"},
                    "verify": {"href": f"{self.hub.url}/lfs/verify"},
                }
            objects.append(row)
        self.json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.json({"error": "the bytes do not have this hash"}, 400)
        self.hub.blobs[oid] = self.body
        self.send(b"", 200)

    def lfs_verify(self):
        ask = json.loads(self.body)
        fits = len(self.hub.blobs.get(ask["oid"], b"")) == ask["size"]
        self.json({} if fits else {"error": "not uploaded"}, 200 if fits else 422)

    def commit(self, kind, name, _revision):
        if not self.find(kind, name) or not self.writer(name):
            return
        repo, message = self.hub.repo(kind, name), ""
        files = dict(repo.files)
        for line in self.body.decode().splitlines():
            step = json.loads(line)
            key, value = step["key"], step["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repo.commits[-1][0]):
                    return self.json({"error": "The branch was updated since you last looked"}, 412)
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return self.json({"error": f"LFS object {value['oid']} is missing"}, 400)
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"], None)
        sha = hashlib.sha1(f"{len(repo.commits)}{name}{message}".encode()).hexdigest()
        repo.commits.append((sha, message, files))
        if b"\nsdk:" in files.get("README.md", b""):
            repo.sdk = yaml.safe_load(files["README.md"].decode().split("---\n")[1])["sdk"]
        repo.stages = list(self.hub.next_stages) if repo.sdk != "static" else ["RUNNING"]
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "pullRequestUrl": None})

    # ---- downloads

    def resolve(self, prefix, name, revision, path):
        kind = "spaces" if prefix else "models"
        if not (repo := self.find(kind, name)):
            return
        found = repo.at(revision)
        if found is None or path not in found[1]:
            code = "RevisionNotFound" if found is None else "EntryNotFound"
            return self.json({"error": f"{path} is not there"}, 404, X_Error_Code=code)
        sha, data = found[0], found[1][path]
        if len(data) <= LFS_ABOVE:
            return self.send(data, X_Repo_Commit=sha, ETag=f'"{git_oid(data)}"')
        oid = hashlib.sha256(data).hexdigest()
        store = self.hub.url.replace("127.0.0.1", "localhost")  # large files lie on another host, as on the real Hub
        self.send(b"", 302, Location=f"{store}/lfs/{oid}", X_Repo_Commit=sha, X_Linked_ETag=f'"{oid}"',
                  X_Linked_Size=str(len(data)))  # fmt: skip

    def lfs_get(self, oid):
        data = self.hub.blobs.get(oid)
        self.send(data or b"", 200 if data is not None else 404, ETag=f'"{oid}"')

    # ---- Spaces

    def runtime(self, name):
        if not (repo := self.find("spaces", name)):
            return
        stage = repo.stages.pop(0) if len(repo.stages) > 1 else (repo.stages or ["NO_APP_FILE"])[0]
        hardware = {"current": repo.hardware, "requested": repo.hardware}
        self.json({"stage": stage, "hardware": hardware, "sha": repo.commits[-1][0], "gcTimeout": None})

    def hardware(self, name):
        if self.writer(name) and (repo := self.find("spaces", name)):
            repo.hardware = json.loads(self.body)["flavor"]
            self.json({"stage": "BUILDING", "hardware": {"current": None, "requested": repo.hardware}})

    def logs(self, _name, _which):
        events = [{"data": line, "timestamp": "2026-01-01T00:00:00.000Z"} for line in self.hub.build_log]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.send(text.encode(), kind="text/event-stream")

    def live(self, name, path):
        repo = self.hub.repos.get(("spaces", name))
        data = repo and repo.files.get(path or "index.html")
        if data is None:
            return self.send(b"not found", 404, "text/plain")
        kind = "text/javascript" if path.endswith(".js") else mimetypes.guess_type(path or "index.html")[0]
        self.send(data, kind=kind or "application/octet-stream")


ROUTES = [
    (("GET",), r"/api/whoami-v2", _Handler.whoami),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("GET",), r"/api/spaces/([^/]+/[^/]+)/runtime", _Handler.runtime),
    (("POST",), r"/api/spaces/([^/]+/[^/]+)/hardware", _Handler.hardware),
    (("GET",), r"/api/spaces/([^/]+/[^/]+)/logs/(build|run)", _Handler.logs),
    (("PUT",), API + r"/settings", _Handler.settings),
    (("GET",), API + r"/commits/([^/]+)", _Handler.history),
    (("POST",), r"/api/spaces/([^/]+/[^/]+)/secrets", _Handler.secret),
    (("GET",), API, _Handler.info),
    (("GET",), API + r"/revision/([^/]+)", _Handler.info),
    (("GET",), API + r"/tree/([^/]+)/?", _Handler.tree),
    (("POST",), API + r"/preupload/([^/]+)", _Handler.preupload),
    (("POST",), API + r"/commit/([^/]+)", _Handler.commit),
    (("POST",), r"/(spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("POST",), r"/lfs/verify", _Handler.lfs_verify),
    (("PUT",), r"/lfs/([0-9a-f]{64})", _Handler.lfs_put),
    (("GET", "HEAD"), r"/lfs/([0-9a-f]{64})", _Handler.lfs_get),
    (("GET", "HEAD"), r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
    (("GET", "HEAD"), r"/live/([^/]+/[^/]+)/?(.*)", _Handler.live),
]
