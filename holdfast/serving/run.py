"""Running a service: its folder, its address, and its end."""

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi.routing import APIRoute

from holdfast.serving.app import create_app
from holdfast.serving.config import ServeConfig, token_for
from holdfast.serving.door import Door
from holdfast.serving.keeping import PROGRAM
from holdfast.serving.service import Service
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import save
from holdfast.tta.errors import InputError
from holdfast.tta.folder import claimed, clear, held, writing
from holdfast.tta.saying import say
from holdfast.tta.streamfile import NAME, before
from holdfast.tta.tracking import own_name

#: Seconds that open requests have when the service stops, and idle connections live.
_GRACE, _IDLE = 20, 30
#: Connections beyond those whose images may wait, for whoever looks at the service.
_SPARE = 64


def serve(config: ServeConfig, source: SourceCheckpoint) -> Path:
    """Serve until a signal comes; returns the folder of the results.

    Raises:
        InputError: options do not go together, the folder is another's, or the address is taken.
        WriteError: the disk takes nothing.
    """
    token = token_for(config.serve.host)
    with _folder(config) as folder:
        service = Service(config, source, folder)
        for note in service.notes:
            say(note)
        service.start()
        try:
            _listen(service, token)
        finally:
            service.stop()
        return folder


@contextmanager
def _folder(config: ServeConfig) -> Iterator[Path]:
    """The folder, for this process alone; one with a state is gone on with."""
    name = config.name or own_name(f"{config.method.kind}-guard-{config.guard.kind}")
    folder = Path(config.output or f"{PROGRAM.root}/{name}").expanduser()
    settings = folder / "config.yaml"
    command = f"{PROGRAM.name} {settings}"
    ours = settings.is_file() and settings.read_text().startswith(f"# {PROGRAM.name} ")
    with ExitStack() as stack:
        if ours and not config.overwrite:
            stack.enter_context(held(folder))
            if not any(path.exists() for path in (folder / NAME, before(folder / NAME))):
                clear(folder, PROGRAM)  # it was stopped before it could serve
            with writing(settings):
                save(config, settings, command)
        else:
            stack.enter_context(claimed(PROGRAM, replace(config, output=str(folder)), name))
        yield folder


class _Server(uvicorn.Server):
    """Uvicorn's server, which says where it listens, and takes a signal for the end of its work."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup()
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                say(f"serving at http://{f'[{host}]' if ':' in host else host}:{port}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the service in good order; a second Ctrl-C at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _listen(service: Service, token: str | None) -> None:
    """Answer requests until a signal comes."""
    serve, app = service.config.serve, create_app(service)
    paths = frozenset(route.path for route in app.routes if isinstance(route, APIRoute))
    door = Door(app, token, serve.max_megabytes, serve.timeout, service.figures, paths)
    settings = uvicorn.Config(
        door,
        host=serve.host,
        port=serve.port,
        log_level="error",  # warnings are what strangers send, as often as they like
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=serve.queue + _SPARE,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_GRACE,
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # likewise
    server = _Server(settings)
    try:
        asyncio.run(server.serve())
    except SystemExit as error:  # uvicorn's, where it cannot listen
        raise InputError(
            f"nothing can listen at {serve.host}:{serve.port}: another program does, or the "
            "address is none of this machine's; choose another, serve.port=N"
        ) from error
