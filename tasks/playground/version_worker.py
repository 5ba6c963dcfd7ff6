"""The process that holds one version: `python -m tasks.playground.version_worker NAME NUMBER`.

The version's files are verified, and loaded with the code that it brings, as everywhere. Each line
of the input is a request in JSON: {"id", "ask", ...}, or {"stop": id}; each is answered by lines
{"id", "answer"}, and at last {"id", "end"} or {"id", "error"}. Requests take turns, answer by
answer, so that a long text keeps no other page waiting. The first line of all tells the facts, or
why the version does not load. The process ends when its input does.
"""

import base64
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pkgutil import resolve_name
from typing import Any, TextIO

from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.playground.image_session import DrawRequest, ImageSession, PointRequest, WayRequest
from tasks.playground.text_session import TextSession, WriteRequest
from tasks.runtime.messages import one_line
from tasks.store.records import shaped

Request = dict[str, Any]
Handler = Callable[[Request], Iterator[Any]]


def text_handlers(session: TextSession) -> dict[str, Handler]:
    """What a text model is asked, by name."""

    def write(request: Request) -> Iterator[Any]:
        return session.write(_write_request(request))

    def rivals(request: Request) -> Iterator[Any]:
        written = [int(each) for each in request["written"]]
        yield session.rivals(_write_request(request), written, int(request["token"]))

    def copies(request: Request) -> Iterator[Any]:
        yield session.copies(str(request["text"]))

    return {"write": write, "rivals": rivals, "copies": copies}


def image_handlers(session: ImageSession) -> dict[str, Handler]:
    """What an image model is asked, by name."""

    def draw(request: Request) -> Iterator[Any]:
        yield session.draw(shaped(request["request"], DrawRequest, "a request"))

    def examples(_: Request) -> Iterator[Any]:
        yield session.examples()

    def axes(_: Request) -> Iterator[Any]:
        yield session.axes()

    def point(request: Request) -> Iterator[Any]:
        yield session.point(shaped(request["request"], PointRequest, "a request"))

    def plane(request: Request) -> Iterator[Any]:
        yield session.plane(shaped(request["request"], PointRequest, "a request"))

    def between(request: Request) -> Iterator[Any]:
        yield session.between(int(request["first"]), int(request["last"]))

    def between_seeds(request: Request) -> Iterator[Any]:
        yield session.between_seeds(shaped(request["request"], WayRequest, "a request"))

    def own(request: Request) -> Iterator[Any]:
        content = base64.b64decode(request["content"], validate=True)
        is_negative = bool(request["is_negative"])
        yield session.own(content, str(request["name"]), is_negative=is_negative)

    return {
        "draw": draw,
        "examples": examples,
        "axes": axes,
        "point": point,
        "plane": plane,
        "between": between,
        "between_seeds": between_seeds,
        "own": own,
    }


def handlers_of(session: TextSession | ImageSession) -> dict[str, Handler]:
    """What a version is asked, by name."""
    if isinstance(session, TextSession):
        return text_handlers(session)
    return image_handlers(session)


def _write_request(request: Request) -> WriteRequest:
    told = dict(request["request"])
    told["forced"] = {int(place): int(token) for place, token in told.get("forced", {}).items()}
    return WriteRequest(**told)


def serve(
    handlers: dict[str, Handler],
    requests: "queue.SimpleQueue[Request | None]",
    reply: Callable[[Request], None],
) -> None:
    """Answer until the requests end with None; those under way take turns."""
    running: dict[Any, Iterator[Any]] = {}
    while True:
        while not running or not requests.empty():
            request = requests.get()
            if request is None:
                return
            if "stop" in request:
                running.pop(request["stop"], None)
                continue
            try:
                running[request["id"]] = handlers[request["ask"]](request)
            except Exception as error:  # whatever a version's own code raises
                reply({"id": request["id"], "error": one_line(error)})
        for number, answers in list(running.items()):
            try:
                reply({"id": number, "answer": next(answers)})
                continue
            except StopIteration:
                reply({"id": number, "end": True})
            except Exception as error:
                reply({"id": number, "error": one_line(error)})
            del running[number]


def read_requests(source: TextIO, requests: "queue.SimpleQueue[Request | None]") -> None:
    """Hand on what comes until it ends; then whoever still loads or computes has no reader left."""
    for line in source:
        requests.put(json.loads(line))
    requests.put(None)


def session_of(name: str, number: int, model: Any, family: Family) -> TextSession | ImageSession:
    """A version's session, with the data that it learned from where this home has them."""
    from tasks.data.splits import load_images, text_pieces
    from tasks.data.tokenization import TokenSet
    from tasks.registry.rehearsal import data_in_store
    from tasks.registry.version_tags import record_tag
    from tasks.registry.versions import get_version
    from tasks.training.provenance import TrainingProvenance

    corpus = training = held_out = None
    try:
        recipe = record_tag(get_version(name, number), "recipe", TrainingProvenance)
        data = data_in_store(name, recipe, family.data, is_a_look=True)
        if isinstance(data, TokenSet):
            corpus = data.corpus
        elif data is not None:
            training, held_out = (load_images(data, split)[0] for split in ("train", "test"))
    except (OSError, ValueError) as error:  # what is damaged is not shown; the version plays
        sys.stderr.write(f"{name} version {number} plays without its data: {one_line(error)}\n")
    if family.data == "text":
        pieces = None if corpus is None else lambda: text_pieces(corpus, "train")
        return TextSession(model, explains=family.explains_tokens, training=pieces)
    return ImageSession(
        model,
        latents=resolve_name(family.latents)(model.model) if family.latents else None,
        training=training,
        held_out=held_out,
    )


def main(name: str, number: int) -> int:
    """Load the version, and answer until the input ends; returns the exit code."""
    replies = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with our answers
    os.dup2(2, 1)

    def reply(message: Request) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    threading.Thread(target=read_requests, args=(sys.stdin, requests), daemon=True).start()
    try:
        from tasks.registry.listing import listed_model
        from tasks.registry.loading import loaded

        family = FAMILIES[listed_model(name).family]
        with loaded(name, str(number)) as model:
            session = session_of(name, number, model, family)
            reply({"facts": session.facts()})
            serve(handlers_of(session), requests, reply)
    except BrokenPipeError:
        return 0
    except Exception as error:
        reply({"failed": one_line(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
