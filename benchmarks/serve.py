"""The labelling page under load: how fast it answers, whether an answer is lost or doubled, when the first question is there.

    python -m benchmarks.serve [--rows 1000000] [--people 4] [--minutes 10] [--pause 1.0] [--photos 5000] [--json FILE]

A pool of `rows` rows of numbers; each of the people answers what the page shows, thinks for about `pause` seconds, and goes on
as a browser does over one connection, to a server started by the command, at 127.0.0.1 alone. The proxy is trained meanwhile,
after every hundred answers. Each answer that was acknowledged must be in the store, once. Before that a folder of `photos`
photos: from the command to the first question, where it also begins the session (`begun`), and where there is one.
"""

import argparse
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.run import machine
from svp.labels import Answer, LabelStore
from tests.serving import FAST, Caller, Server

CLASSES = 3


class Person(threading.Thread):
    """Answers until it is told to stop; never more than `most` answers."""

    def __init__(self, server: Server, name: str, pause: float, stop: threading.Event, most: int = 20_000) -> None:
        super().__init__()
        self.who, self.told, self.seconds, self.waits = name, dict[int, int](), list[float](), 0
        self._caller, self._pause, self._end, self._most = Caller(server).enter(), pause, stop, most
        self._connection = http.client.HTTPConnection("127.0.0.1", self._caller.address.port, timeout=60)

    def run(self) -> None:
        chance = random.Random(self.who)
        cards: list[Any] = []
        while not self._end.is_set() and len(self.told) < self._most:
            if not cards:
                self.waits += 1
                cards = self._say("/next", {})["cards"]
                self._end.wait(0 if cards else 0.2)
                continue
            id_ = cards[0]["id"]
            begin = time.perf_counter()
            cards = self._say("/answer", {"id": id_, "said": id_ % CLASSES})["cards"]
            self.seconds.append(time.perf_counter() - begin)
            self.told[id_] = id_ % CLASSES  # acknowledged
            self._end.wait(chance.uniform(0.5, 1.5) * self._pause)

    def _say(self, path: str, said: dict[str, Any]) -> Any:
        caller = self._caller
        headers = {"Cookie": caller.cookie, "X-SVP-Form": caller.form, "Origin": f"http://{caller.host}"}
        headers |= {"Content-Type": "application/json", "Host": caller.host}
        self._connection.request("POST", path, json.dumps({"who": self.who, **said}), headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)


def load(folder: Path, rows: int, people: int, minutes: float, pause: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 8)).astype(np.float32)
    x[:, 0] += 3 * (np.arange(rows) % CLASSES)  # what the id says is what can be learned
    np.savez(folder / "pool.npz", x=x)
    begin = time.perf_counter()
    server = Server(
        folder / "s", "--data", str(folder / "pool.npz"), "--classes", "a,b,c", "-n", "100", "--port", "0", *FAST
    )
    try:
        started = time.perf_counter() - begin
        first = first_question(server) + started
        stop = threading.Event()
        everybody = [Person(server, f"person {i}", pause, stop) for i in range(people)]
        for person in everybody:
            person.start()
        stop.wait(60 * minutes)
        stop.set()
        for person in everybody:
            person.join()
        state = json.loads(everybody[0]._caller.get("/progress")[2])
    finally:
        server.kill()
    seconds = sorted(second for person in everybody for second in person.seconds)
    acknowledged = {(person.who, id_): said for person in everybody for id_, said in person.told.items()}
    with LabelStore.open(folder / "s" / "labels.sqlite") as store:
        stored = Counter((a.who, a.id) for a in store.history() if isinstance(a, Answer))
        said = {(a.who, a.id): a.label for a in store.said()}
    return {
        "rows": rows,
        "people": people,
        "answers": len(acknowledged),
        "median_ms": 1000 * statistics.median(seconds),
        "p99_ms": 1000 * seconds[int(0.99 * len(seconds))],
        "most_ms": 1000 * seconds[-1],
        "lost": sum(said.get(key) != label for key, label in acknowledged.items()),
        "doubled": sum(n - 1 for n in stored.values()) + len(stored.keys() - acknowledged.keys()),
        "asked_twice": len(acknowledged) - len({id_ for _, id_ in acknowledged}),
        "waits": sum(person.waits - 1 for person in everybody),
        "learned_from": state["behind"]["learned_from"],
        "begun_seconds": first,
    }


def first_question(server: Server) -> float:
    """Seconds until the page has something to ask."""
    begin = time.perf_counter()
    caller = Caller(server).enter()
    while not caller.say("/next", {"who": "ann"})[1]["cards"]:
        time.sleep(0.02)
    return time.perf_counter() - begin


def photos(folder: Path, n: int) -> dict[str, Any]:
    """Seconds from the command to the first question: where it begins the session, and where there is one."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(n):
        small = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480)).save(folder / "photos" / f"{i:05d}.jpg", quality=85)
    seconds = []
    for arguments in (["--data", str(folder / "photos"), "--classes", "cat,dog", *FAST], []):
        begin = time.perf_counter()
        server = Server(folder / "p", *arguments, "--port", "0")
        first_question(server)
        seconds.append(time.perf_counter() - begin)
        server.kill()
    return {"photos": n, "begun_seconds": seconds[0], "first_question_seconds": seconds[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds that a person thinks")
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        if given.photos:
            found["photos"] = photos(Path(folder), given.photos)
        if given.rows:
            found["load"] = load(Path(folder), given.rows, given.people, min(given.minutes, 60), given.pause)
    for name, facts in found.items():
        print(name, ", ".join(f"{k} {v:,.1f}" if isinstance(v, float) else f"{k} {v:,}" for k, v in facts.items()))
    print(json.dumps(machine()))
    if given.json:
        given.json.write_text(json.dumps({**found, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
