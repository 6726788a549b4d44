"""The page and the API, and the server that answers them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from socket import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

import fakegan
from fakegan.data.formats import OTHER_FILES
from fakegan.errors import FakeganError, UsageError
from fakegan.judge import Judge
from fakegan.serve.guard import Guard
from fakegan.serve.limits import Limits
from fakegan.serve.worker import Answer, Upload, Worker

_PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_NAME_LENGTH = 300  # characters of a client's file name that come back
_EXPECTED = 'send multipart/form-data with a part "files" and a file name for each picture'
_FILES = {"type": "object", "required": ["files"], "properties": {
    "files": {"type": "array", "items": {"type": "string", "format": "binary"}}}}  # fmt: skip
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILES}}}}
_CONNECTIONS = 500  # open at a time
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a broken upload is answered, and no news here


class _InMemory(MultiPartParser):
    """Uploads never go to the disk: the guard has bounded them."""

    spool_max_size = 0


def app_of(detector: Judge, told: Mapping[str, Any], limits: Limits, token: str = "", host: str = "127.0.0.1") -> Guard:
    """The whole of what answers; `told` is what `told_of` gives."""
    app = FastAPI(title="FakeGAN", version=fakegan.__version__, docs_url=None, redoc_url=None)
    worker, about = Worker(detector), _about(detector, told, limits)

    @app.post("/predict", openapi_extra=_UPLOAD)
    async def predict(request: Request, pictures: bool = False) -> list[Answer]:
        """A verdict on each picture: the columns of `fakegan.predict`, and PNGs of its face with pictures=true."""
        if unknown := set(request.query_params) - {"pictures"}:
            raise HTTPException(422, f"{min(unknown):.100} is no option of /predict: pictures=true is the only one")
        return await worker.predict(await _uploads(request, limits.files), pictures)

    @app.post("/explain", openapi_extra=_UPLOAD, responses={200: {"content": {"image/png": {}}}})
    async def explain(request: Request) -> Response:
        """Where one picture's score comes from, as a PNG: orange places speak for fake, blue ones for real.

        The header Full-Colour says how many log odds the strongest colour stands for.
        """
        ((_, content),) = await _uploads(request, 1)
        drawn, full = await worker.explain(content)
        return Response(drawn, media_type="image/png", headers={"Full-Colour": f"{full:.3g}"})

    @app.get("/model")
    def model() -> dict[str, Any]:
        """What the detector is and has learnt, its model card, what it decides by, and the limits of a request."""
        return about

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.exception_handler(FakeganError)
    def failed(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422 if isinstance(error, UsageError) else 500)

    @app.exception_handler(RequestValidationError)
    def unclear(_request: Request, error: RequestValidationError) -> JSONResponse:
        words = [f"{found['loc'][-1]}={found['input']!s:.100}: {found['msg']}" for found in error.errors()]
        return JSONResponse({"detail": "; ".join(words)}, 422)

    for path, file in _PAGE.items():
        _serve_file(app, path, Path(__file__).with_name(file))
    return Guard(app, limits, token, host)


def _serve_file(app: FastAPI, path: str, file: Path) -> None:
    content, kind = file.read_bytes(), _TYPES[file.suffix]
    app.get(path, include_in_schema=False)(lambda: Response(content, media_type=kind))


async def _uploads(request: Request, most: int) -> list[Upload]:
    """The files of a request; a 400 for anything else in it."""
    kind = request.headers.get("content-type", "").lower()
    if not kind.startswith("multipart/form-data;") or "charset=" in kind:  # no client needs it; names are UTF-8
        raise HTTPException(400, _EXPECTED)
    try:
        form = await _InMemory(request.headers, request.stream(), max_files=most, max_fields=0).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"{_EXPECTED}, {most} at most: {error.message}") from None
    found = form.multi_items()
    if not found or any(name != "files" for name, _ in found):
        raise HTTPException(400, f"{_EXPECTED}, {most} at most")
    files = [file for _, file in found if isinstance(file, UploadFile)]
    return [((file.filename or "")[:_NAME_LENGTH], await file.read()) for file in files]


def _about(detector: Judge, told: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    return {
        **told,
        "fakegan": fakegan.__version__,
        **detector.parts(),
        "geometry": detector.geometry.values(),
        "threshold": detector.threshold,
        "band": list(detector.band),
        "warning": detector.guessing(),
        "device": detector.described_device(),
        "no_pictures": sorted(OTHER_FILES),
        "limits": asdict(limits),
    }


class _Connection(H11Protocol):
    """A connection on which the head of a request has to arrive in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self._clock()

    def _clock(self) -> Any:
        return self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._late.cancel()
        elif self._late.cancelled():
            self._late = self._clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(detector: Judge, told: Mapping[str, Any], listening: socket, limits: Limits, token: str) -> None:
    """Answer at this socket for ever."""
    app = app_of(detector, told, limits, token, listening.getsockname()[0])
    quiet: dict[str, Any] = {"log_config": None, "log_level": "error", "access_log": False, "server_header": False}
    _Server(uvicorn.Config(app, http=_Connection, ws="none", limit_concurrency=_CONNECTIONS, **quiet)).run([listening])
