"""A Label Studio server: a session's project there, its tasks, and the annotations that come back.

Plain HTTP over the standard library. The project is known by a mark in its description, a task by our id in its data, so that
nothing has to be kept here, and whatever was interrupted can be done again.
"""

import http.client
import json
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from svp.errors import ServerError, SettingError, SvpWarning, shortened
from svp.exchange.items import Asked, Told
from svp.exchange.label_studio import address_of, annotations_of, interface_of, pool_of, tasks_of

TIMEOUT = 60.0  # seconds
_HERE = {"localhost", "127.0.0.1", "::1"}
_STORAGES = "/api/storages/localfiles"


def _json(content: bytes) -> Any:
    return json.loads(content or b"null")


@dataclass(frozen=True)
class Pushed:
    """A project by its number and address, how many tasks are new in it, and how many were there already."""

    project: int
    url: str
    new: int
    known: int


@dataclass(frozen=True)
class Pulled:
    """What every annotator says now, and the ids of the examples that are tasks there, annotated or not."""

    told: list[Told]
    ids: frozenset[int]


class Server:
    """A Label Studio server at `url`, for whoever has a token of it: a personal access token, or a legacy one.

    The token is sent to that address alone, and is in no message. All methods raise ServerError where the server cannot be
    reached, or refuses; what was done until then stays, and doing it again does the rest.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self._token = url.rstrip("/"), token.strip()
        if not all("!" <= letter <= "~" for letter in self._token):  # the message does not repeat it
            raise SettingError(
                "The token holds a space, a line break, or a letter that no token has; copy it anew into LABEL_STUDIO_API_KEY"
            )
        proxies = [urllib.request.ProxyHandler({})] if _host(url) in _HERE else []
        self._opener = urllib.request.build_opener(_Stays, *proxies)
        self._authority = ""

    def push(self, title: str, mark: str, asked: Sequence[Asked], classes: Sequence[str]) -> Pushed:
        """Import what is asked, in this order, into the project with this mark, which is made where it is not there."""
        photos = any(item.file is not None for item in asked)
        interface = interface_of(classes, photos)
        project = self._project(mark)
        if project is None:
            settings = {
                "title": f"svp: {title}"[:50],  # of 3 letters at least
                "description": mark,
                "label_config": interface,
                "sampling": "Sequential sampling",
                "show_collab_predictions": True,
                "show_skip_button": True,
            }
            project = _project_in(self._call("POST", "/api/projects/", settings), self.url)
        elif project["label_config"] != interface:
            self._call("PATCH", f"/api/projects/{project['id']}/", {"label_config": interface})
        if photo := next((item for item in asked if item.file is not None), None):
            self._give_out(project["id"], photo)
        known = {task["data"].get("svp_id") for task in self._tasks(project["id"])}
        new = [item for item in asked if item.id not in known]
        if new:
            self._call("POST", f"/api/projects/{project['id']}/import", tasks_of(new, photos))
        return Pushed(project["id"], f"{self.url}/projects/{project['id']}", len(new), len(asked) - len(new))

    def pull(self, mark: str) -> Pulled:
        """What the project with this mark holds now; a skipped task is skip."""
        project = self._project(mark)
        if project is None:
            raise ServerError(f"{self.url} has no project of this session; svp session push makes it")
        tasks = self._tasks(project["id"])
        told = annotations_of([task for task in tasks if task.get("annotations")], f"project {project['id']}")
        last: dict[Any, Told] = {}
        for each in sorted(told, key=lambda each: each.at or ""):  # of one person's several annotations the last
            last[each.id, each.key, each.who] = each
        ids = {task["data"].get("svp_id") for task in tasks}
        return Pulled(list(last.values()), frozenset(id_ for id_ in ids if isinstance(id_, int)))

    def _project(self, mark: str) -> Any | None:
        page = 1
        while True:
            found = self._call("GET", f"/api/projects/?{urlencode({'page': page, 'page_size': 100})}")
            if not isinstance(found, dict) or not isinstance(found.get("results"), list):
                raise _another(self.url, "no list of projects")
            for project in found["results"]:
                if isinstance(project, dict) and project.get("description") == mark:
                    return _project_in(project, self.url)
            if not found.get("next"):
                return None
            page += 1

    def _give_out(self, project: int, photo: Asked) -> None:
        """Make the folder of the photos a storage of the project, and see whether this one is shown; else a warning."""
        assert photo.file is not None
        folder = pool_of(photo.file, photo.key)
        try:
            known = self._call("GET", f"{_STORAGES}?{urlencode({'project': project})}")
            if str(folder) not in [one.get("path") for one in known or [] if isinstance(one, dict)]:
                storage = {"project": project, "title": "svp", "path": str(folder), "use_blob_urls": True}
                self._call("POST", _STORAGES, storage)
            self._call("GET", address_of(photo.file, photo.key), read=bool)
        except ServerError as error:
            warnings.warn(
                f"No photo is shown there as yet. Start the server with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
                f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}, and push once more; where it runs on another machine, "
                f"add a storage of local files for its copy of {folder.name} to the project ({error})",
                SvpWarning,
                stacklevel=2,
            )

    def _tasks(self, project: int) -> list[Any]:
        query = {"exportType": "JSON", "download_all_tasks": "true"}
        found = self._call("GET", f"/api/projects/{project}/export?{urlencode(query)}")
        if not isinstance(found, list) or not all(_is_task(task) for task in found):
            raise _another(self.url, "no list of tasks")
        return found

    # --- HTTP ----------------------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: Any = None, read: Callable[[bytes], Any] = _json) -> Any:
        if not self._authority:
            self._authority = self._enter()
        return self._send(method, path, body, {"Authorization": self._authority}, read)

    def _enter(self) -> str:
        """A personal access token (a JSON web token) is exchanged for one of some minutes; a legacy one is sent as it is."""
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        answer = self._send("POST", "/api/token/refresh", {"refresh": self._token}, {})
        if not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
            raise _another(self.url, "no token")
        return f"Bearer {answer['access']}"

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str], read: Callable[[bytes], Any] = _json
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**headers, "Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return read(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = self._without_token(_reason(error.read(9999).decode(errors="replace")))
            if error.code in (401, 403):
                raise ServerError(
                    f"{self.url} refuses the token ({error.code}); make one there (Account & Settings), set "
                    "LABEL_STUDIO_API_KEY to it, and repeat the command"
                ) from None
            raise ServerError(
                f"{self.url} answered {error.code} to {method} {path.partition('?')[0]}: {said}"
            ) from None
        # What came is no JSON, or no HTTP, or not all of it.
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = self._without_token(str(getattr(error, "reason", error)) or type(error).__name__)
            raise ServerError(
                f"{self.url} cannot be reached, or is no Label Studio ({reason}); repeat the command"
            ) from None

    def _without_token(self, said: str) -> str:
        return shortened(said.replace(self._token, "...") if self._token else said)


def _host(url: str) -> str:
    """The name of the machine in the address of a server."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises
    except ValueError:
        host = None
    if not host or not url.isprintable() or parts.scheme not in ("http", "https") or parts.username is not None:
        raise SettingError(f"{url!r} is no address of a server; give one such as http://127.0.0.1:8080")
    return host


def _project_in(answer: Any, url: str) -> Any:
    if not isinstance(answer, dict) or not {"id", "label_config"} <= answer.keys():
        raise _another(url, "no project")
    return answer


def _is_task(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("data"), dict)


def _another(url: str, came: str) -> ServerError:
    return ServerError(
        f"{url} is no Label Studio, or of another version: {came} came; check the address, then repeat the command"
    )


def _reason(said: str) -> str:
    """What is wrong, in the server's record of an error; or all that it said."""
    try:
        record = json.loads(said)
        return str(record.get("validation_errors") or record["detail"])
    except (ValueError, AttributeError, KeyError):
        return said


class _Stays(urllib.request.HTTPRedirectHandler):
    """A redirection would take the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
