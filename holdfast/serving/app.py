"""The application: what can be asked, and how requests become images and answers."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile

import holdfast
from holdfast.datamodules.decoding import Unreadable
from holdfast.datamodules.labelfile import known_as
from holdfast.serving.answers import Answer, Answers, Labels, Refusal, State, Taken
from holdfast.serving.coming import Coming
from holdfast.serving.lane import Closed, Full
from holdfast.serving.service import Service
from holdfast.serving.status import REFRESH
from holdfast.tta.errors import InputError, WriteError

#: Letters of an id, or of what else is said of an image.
_LONGEST = 256
#: What is read of a query, and of a form.
_ASKED, _FIELDS = ("id", "metadata"), ("images", "ids", "metadata")
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": told}
    for status, told in {
        400: "the request is malformed",
        401: "the token is missing or wrong",
        403: "the request comes from elsewhere",
        408: "the request took too long to come in",
        413: "the request is too large",
        422: "an image cannot be used, or an option is none",
        429: "the queue is full: come back after Retry-After seconds",
        503: "the service is stopping, late, or cannot write its results",
    }.items()
}
_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": _BINARY, "minItems": 1},
                        "ids": {"type": "array", "items": {"type": "string"}},
                        "metadata": {
                            "type": "string",
                            "description": "JSON: an object for each image, in a list, or one "
                            "for all",
                        },
                    },
                }
            },
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}


def create_app(service: Service) -> FastAPI:
    """The application of a service.

    Args:
        service: started and stopped by whoever runs the application.
    """
    app = FastAPI(
        title="Holdfast",
        description=f"{service.title}: images in, answers out.",
        version=holdfast.__version__,
        docs_url=None,  # its page would ask another site for its scripts
        redoc_url=None,
    )
    decoders = ThreadPoolExecutor(service.decoders, "decode")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Full, _full)
    app.add_exception_handler(Closed, _closed)
    app.add_exception_handler(WriteError, _unwritten)
    _add_requests(app, service, decoders)
    _add_supervision(app, service)
    return app


def _add_requests(app: FastAPI, service: Service, decoders: ThreadPoolExecutor) -> None:
    """What clients ask."""

    @app.post("/predict", responses=_REFUSALS, openapi_extra=_BODY)
    async def predict(
        request: Request,
        id: Annotated[str | None, Query(max_length=_LONGEST, description="of one image")] = None,
        metadata: Annotated[str | None, Query(description="JSON, of one image")] = None,
    ) -> Answers:
        """Answer to images: a form with one or several, or the bytes of one."""
        held = 1
        service.lane.enter(held)
        try:
            contents, ids, told = await _read(request, service, id, metadata)
            extra = len(contents) - held
            if extra:
                service.lane.enter(extra)
                held += extra
            coming = Coming(service.lane, service.reader.read, ids, told)
            held = 0  # from here on it has the places
        finally:
            if held:
                service.lane.leave(held)
        coming.start(decoders, contents)
        return Answers(images=await _answers(coming.answers, service.config.serve.timeout))

    @app.post("/labels", responses=_REFUSALS | {409: _REFUSALS[422]}, status_code=202)
    def labels(given: Labels) -> Taken:
        """Labels of images that were sent before, or will be: the guard heeds them."""
        for one in given.labels:
            _text("id", one.id)  # as images' own: no other one would ever be met
        if service.labels is None:
            raise HTTPException(
                409, "labels tell the guard what to serve: start with serve.labels=true"
            )
        try:
            taken = service.labels.add(given.labels)
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        service.figures.labels.inc(taken)
        return Taken(taken=taken)


def _add_supervision(app: FastAPI, service: Service) -> None:
    """What supervisors and people look at."""

    @app.get("/health", responses={503: {"model": State}})
    async def health() -> JSONResponse:
        """Whether the thread that serves is alive; restart the service where it is not."""
        alive = service.lane.alive
        return JSONResponse({"status": "alive" if alive else "stopping"}, 200 if alive else 503)

    @app.get("/ready", responses={503: {"model": State}})
    def ready() -> JSONResponse:
        """Whether there is room for requests, in the queue and on the disk."""
        reason = service.unready
        return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)

    @app.get("/metrics", response_class=Response, responses=_REFUSALS)
    def metrics() -> Response:
        """Figures for Prometheus."""
        exposed = service.figures.exposed(service.lane.waiting)
        return Response(exposed, media_type=CONTENT_TYPE_LATEST)

    @app.get("/status", responses=_REFUSALS)
    def status() -> dict[str, Any]:
        """What the service is, how it stands, and its last batches."""
        return service.status()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        """The status page."""
        return HTMLResponse(service.page(), headers={"refresh": str(REFRESH)})


Told = list[dict[str, str]]


async def _read(
    request: Request, service: Service, id: str | None, metadata: str | None
) -> tuple[list[bytes], list[str], Told]:
    """Contents, ids and what else is said of a request's images."""
    _refuse_unknown("query", request.query_params, _ASKED)
    for name in _ASKED:
        _refuse_several(name, request.query_params.getlist(name))
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return (
            [await request.body()],
            _ids([] if id is None else [id], 1),
            _told(metadata, 1, service),
        )
    most = service.config.serve.max_images
    async with request.form(max_files=most, max_fields=most + 1) as form:
        _refuse_unknown("form", form, _FIELDS)
        files = [part for part in form.getlist("images") if isinstance(part, UploadFile)]
        names = [part for part in form.getlist("ids") if isinstance(part, str)]
        _refuse_several("metadata", form.getlist("metadata"))
        if id is not None:
            raise HTTPException(422, "id is of one image in the query: a form names its own by ids")
        said = form.get("metadata", metadata)
        if not files or isinstance(said, UploadFile):
            raise HTTPException(422, "the form has no file called images: send one or several")
        contents = [await file.read() for file in files]
    return contents, _ids(names, len(contents)), _told(said, len(contents), service)


def _refuse_unknown(where: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse what nobody reads: an image would get another id than its sender thinks."""
    for name in given:
        if name not in known:
            raise HTTPException(
                422,
                f"the {where} has {name[:_LONGEST]!r}, and what is read of it is "
                f"{', '.join(known)}: leave it out",
            )


def _refuse_several(name: str, given: Sequence[object]) -> None:
    """Refuse a field that stands there several times, of which one would count."""
    if len(given) > 1:
        raise HTTPException(
            422,
            f"{name} is there {len(given)} times: of several images send a form with ids, and "
            "metadata as one list",
        )


def _ids(given: Sequence[str], count: int) -> list[str]:
    """The names of images: those that were given, or new ones."""
    if not given:
        return [uuid4().hex for _ in range(count)]
    if len(given) != count or len(set(map(known_as, given))) != count:
        raise HTTPException(422, f"there are {count} images: give each an id of its own, or none")
    return [_text("id", name) for name in given]


def _text(name: str, value: Any) -> str:
    """A value as text that any table holds."""
    text = value if isinstance(value, str) else json.dumps(value)
    if not text.strip() or len(text) > _LONGEST or not text.isprintable():
        raise HTTPException(422, f"{name} must have 1 to {_LONGEST} letters, all of them printable")
    return text


def _told(given: str | None, count: int, service: Service) -> Told:
    """What a request says of each image, by the columns' names."""
    if not given:
        return [{}] * count
    try:
        told = json.loads(given, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, "metadata is no JSON") from error
    rows = told if isinstance(told, list) else [told] * count
    if len(rows) != count or not all(isinstance(row, dict) for row in rows):
        raise HTTPException(422, f"metadata must be an object, or a list of {count}, one an image")
    return [{name: _value(name, row[name], service) for name in row} for row in rows]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which each name stands once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise HTTPException(422, "metadata names something twice, of which one would count")
    return found


def _value(name: str, value: Any, service: Service) -> str:
    known = service.columns
    if name not in known:
        raise HTTPException(
            422,
            f"metadata {name[:_LONGEST]!r} is none of {', '.join(known)}: leave it out, or start "
            "with serve.metadata=[NAME]",
        )
    if not isinstance(value, str | int | float | bool | None):
        raise HTTPException(422, f"metadata {name} must be text, a number, true, false or null")
    return "" if value in (None, "") else _text(name, value)


async def _answers(coming: Sequence[Future[Answer]], timeout: float) -> list[Answer]:
    """The answers, once they are there."""
    waiting = [asyncio.wrap_future(answer) for answer in coming]
    try:
        async with asyncio.timeout(timeout):
            return list(await asyncio.gather(*waiting))
    except Unreadable as error:
        raise HTTPException(422, str(error)) from error
    except TimeoutError:
        for answer in coming:  # what is not being served yet is served to nobody
            answer.cancel()
        raise HTTPException(
            503,
            f"no answer within {timeout:g} s: the service is too slow for its load",
            {"retry-after": "1"},
        ) from None


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What is wrong, and nothing of what was sent: FastAPI's own answer fails where that is no
    text.
    """
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    told = f"{'.'.join(map(str, first['loc']))[:_LONGEST]}: {first['msg'][:_LONGEST]}"
    return JSONResponse({"detail": told.encode(errors="replace").decode()}, 422)


async def _full(request: Request, error: Exception) -> JSONResponse:
    seconds = error.seconds if isinstance(error, Full) else 1
    return JSONResponse({"detail": str(error)}, 429, {"retry-after": str(seconds)})


async def _closed(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "the service is stopping"}, 503, {"retry-after": "5"})


async def _unwritten(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503, {"retry-after": "30"})
