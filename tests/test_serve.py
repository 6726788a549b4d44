"""The page's server in this process: predict's rows to the bit, what is refused, and that nothing is kept."""

import asyncio
import base64
import io
import json
import socket
import sys
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakegan import predict
from fakegan.data.images import Geometry, read_face
from fakegan.data.sheets import over
from fakegan.grid import explanation
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.runs.portable import save_portable
from fakegan.serve import __main__ as serve
from fakegan.serve.limits import Limits
from tests.helpers import encode, picture
from tests.pages import parse_html
from tests.pictures import detector, png_header

for needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(needed, reason="make install brings it")
httpx = pytest.importorskip("httpx", reason="make install brings it")
TOKEN = "t" * 16
LIMITS = Limits()
FACE = encode(picture(1))


small = lru_cache(detector)


def client(found: Any = None, limits: Limits = LIMITS, token: str = "", **headers: str) -> Any:
    from fakegan.serve.app import app_of

    app = httpx.ASGITransport(app_of(found or small(), {"name": "a run"}, limits, token))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=app, base_url="http://localhost:8000", headers=headers)


def ask(method: str, path: str, *, of: Any = None, **options: Any) -> Any:
    return asyncio.run((of or client()).request(method, path, **options))


def parts(*contents: bytes | tuple[str, bytes], name: str = "files") -> list[Any]:
    return [(name, c if isinstance(c, tuple) else (f"{i}.png", c)) for i, c in enumerate(contents)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of many kinds, and some that are none."""
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "a.png": encode(picture(2, 90)),
        "b.jpg": encode(picture(3, 120).crop((0, 0, 120, 80)), "JPEG", exif=turned, quality=90),
        "c.webp": encode(picture(4, 70).convert("L"), "WEBP"),
        "d.tif": encode(picture(5, 64), "TIFF"),
        "e.gif": encode(picture(6, 64), "GIF"),
        "f.png": encode(picture(7, 90).convert("RGBA")),
        "g.png": FACE[:-200],
        "h.jpg": b"no picture",
        "i.png": b"",
        "j.png": png_header(30_000, 30_000),
        "k<script>.png": FACE,
    }
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    return tmp_path / "in"


@pytest.mark.parametrize("view", ["pixels", "stack"])
def test_rows_are_those_of_predict_to_the_bit(view: str, folder: Path, tmp_path: Path, capfd: Any) -> None:
    found = detector(view)
    found.save(tmp_path / DETECTOR_FILE)
    predict.main(["--run", str(tmp_path), "--device", "cpu", "--workers", "1", "--format", "json", str(folder)])
    expected = json.loads(capfd.readouterr().out)
    names = [Path(row["file"]).name for row in expected]
    answer = ask("POST", "/predict", of=client(found), files=parts(*((n, (folder / n).read_bytes()) for n in names)))
    assert answer.status_code == 200
    assert answer.json() == [{**row, "file": name, "pictures": {}} for row, name in zip(expected, names, strict=True)]
    assert [row["error"] != "" for row in expected] == [name[0] in "ghij" for name in names]
    assert len({row["score"] for row in expected}) == 8  # and None


def test_pictures_are_what_was_judged() -> None:
    (row,) = ask("POST", "/predict?pictures=true", files=parts(FACE)).json()
    shown = {
        name: base64.b64decode(url.removeprefix("data:image/png;base64,")) for name, url in row["pictures"].items()
    }
    assert list(shown) == ["face", "reconstruction", "residual"]
    face, recon, residual = (np.asarray(Image.open(io.BytesIO(png))).astype(int) for png in shown.values())
    assert np.array_equal(face, read_face(FACE, Geometry()).pixels)
    assert np.abs(np.clip(4 * np.abs(face - recon), 0, 255) - residual).max() <= 1
    (row,) = ask("POST", "/predict?pictures=true", of=client(detector("pixels")), files=parts(FACE)).json()
    assert list(row["pictures"]) == ["face"]


def test_an_explanation_is_a_picture_of_the_face() -> None:
    answer = ask("POST", "/explain", files=parts(FACE))
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    found = explanation(small(), read_face(FACE, Geometry()).pixels)
    assert np.array_equal(shown, over(read_face(FACE, Geometry()).pixels, found))
    assert float(answer.headers["Full-Colour"]) == pytest.approx(abs(found).max(), rel=0.01)
    refused = ask("POST", "/explain", files=parts(FACE[:-200]))
    assert (refused.status_code, refused.json()) == (422, {"detail": "truncated or damaged"})
    assert ask("POST", "/explain", files=parts(FACE, FACE)).status_code == 400


def test_others_are_answered_between_the_faces_of_an_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The net's first call waits until a prediction stands behind it: that is then the second of all."""
    from fakegan.serve.worker import FEW, Worker

    found, calls, begun, go = small(), list[int](), threading.Event(), threading.Event()
    worker = Worker(found)
    submit, margins, judged = worker._net.submit, found.margins, worker._judged

    def margins_once_it_may(faces: Any, *others: Any) -> Any:
        calls.append(len(faces))
        begun.set()
        assert go.wait(60)
        return margins(faces, *others)

    def submitted(task: Any, *given: Any) -> Any:
        future = submit(task, *given)
        if task == judged_in_turn:
            go.set()
        return future

    def judged_in_turn(*given: Any) -> Any:
        calls.append(0)
        return judged(*given)

    async def both() -> None:
        explained = asyncio.create_task(worker.explain(FACE))
        await asyncio.to_thread(begun.wait, 60)
        await asyncio.gather(worker.predict([("a.png", FACE)], pictures=False), explained)

    monkeypatch.setattr(found, "margins", margins_once_it_may)
    monkeypatch.setattr(worker, "_judged", judged_in_turn)
    monkeypatch.setattr(worker._net, "submit", submitted)
    asyncio.run(both())
    assert calls == [FEW, 0, FEW, FEW, FEW, 145 - 4 * FEW]


def test_the_page_tells_of_an_exported_file_and_of_a_run_by_its_name(tmp_path: Path) -> None:
    from fakegan.serve.told import told_of

    found, run = small(), tmp_path / "my run"
    save_portable({**found.content(), "learnt_from": ["ffhq"]}, tmp_path / "a.fakegan", "# A card")
    assert told_of(tmp_path / "a.fakegan", found) == {"name": "a.fakegan", "learnt_from": ["ffhq"], "card": "# A card"}
    assert told_of(run / DETECTOR_FILE, found) == {"name": "my run", "learnt_from": None, "card": ""}


def test_an_upload_never_reaches_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    large = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)))
    assert len(large) > 2**21  # Starlette's own limit is 2**20
    (row,) = ask("POST", "/predict", files=parts(large)).json()
    assert row["error"] == ""


@pytest.mark.parametrize(
    ("code", "sentence", "options"),
    [
        (400, "multipart/form-data", {}),
        (400, "multipart/form-data", {"content": FACE, "headers": {"Content-Type": "image/png"}}),
        (400, "multipart/form-data", {"content": FACE, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
        (400, "each picture, 2 at most", {"files": parts(FACE, name="file")}),
        (400, "each picture, 2 at most", {"data": {"files": "/etc/passwd"}, "files": parts(FACE)}),
        (400, "2 at most", {"files": parts(FACE, FACE, FACE)}),
        (413, "more than 1 MiB", {"files": parts(bytes(2**20))}),
        (413, "more than 1 MiB", {"files": parts(bytes(2**24))}),
        (421, "as localhost", {"files": parts(FACE), "headers": {"Host": "rebound.example:8000"}}),
        (403, "another site", {"files": parts(FACE), "headers": {"Origin": "http://evil.example"}}),
        (403, "another site", {"files": parts(FACE), "headers": {"Origin": "null"}}),
        (403, "another site", {"files": parts(FACE), "headers": {"Origin": "http://["}}),
        (200, "score", {"files": parts(FACE), "headers": {"Origin": "http://localhost:8000"}}),
    ],
)
def test_what_is_refused(code: int, sentence: str, options: dict[str, Any]) -> None:
    answer = ask("POST", "/predict", of=client(limits=Limits(mib=1, files=2)), **options)
    assert (answer.status_code, sentence in answer.text) == (code, True), answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("query", "word"), [("pictures=maybe", "pictures=maybe: "), ("picture=true", "picture is no")])
def test_an_option_that_cannot_be_read_is_refused_in_a_sentence(query: str, word: str) -> None:
    answer = ask("POST", f"/predict?{query}", files=parts(FACE))
    assert (answer.status_code, answer.json()["detail"].startswith(word)) == (422, True), answer.text


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x; charset=punycode", "text/plain; boundary=x"])
def test_a_form_of_another_kind_is_refused_and_its_names_are_utf_8(kind: str, caplog: Any) -> None:
    """Python's punycode fails at such a name, and not every codec gives text that JSON can hold."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="\xc3\xa9..png"\r\n\r\n'
    body = head + FACE + b"\r\n--x--\r\n"
    answer = ask("POST", "/predict", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, "send multipart/form-data" in answer.text) == (400, True)
    form = {"headers": {"Content-Type": "Multipart/Form-Data; boundary=x"}}
    assert ask("POST", "/predict", content=body.replace(b"--x", b"--y", 1), **form).status_code == 400
    assert not caplog.records  # of python-multipart
    answer = ask("POST", "/predict", content=body, **form)
    assert [row["file"] for row in answer.json()] == ["é..png"]


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/health", "/openapi.json", "/model", "/other"])
def test_the_token_opens_what_tells_of_the_run(path: str) -> None:
    closed = path in {"/model", "/other"}
    assert ask("GET", path, of=client(token=TOKEN)).status_code == (401 if closed else 200)
    assert ask("GET", path, of=client(token=TOKEN, Authorization="Bearer wrong")).status_code == (
        401 if closed else 200
    )
    opened = ask("GET", path, of=client(token=TOKEN, Authorization=f"Bearer {TOKEN}", Host="faces.example"))
    assert opened.status_code == (404 if path == "/other" else 200)
    assert ask("POST", "/predict", of=client(token=TOKEN), files=parts(FACE)).status_code == 401


def test_a_client_that_sends_nothing_more_is_let_go() -> None:
    async def never() -> Any:
        yield b"--x"
        await asyncio.Event().wait()

    of, options = client(limits=Limits(seconds=0)), {"Content-Type": "multipart/form-data; boundary=x"}
    answer = ask("POST", "/predict", of=of, content=never(), headers=options)
    assert (answer.status_code, "0 seconds" in answer.text) == (408, True)


def test_one_request_too_many_is_told_to_come_again() -> None:
    async def both() -> tuple[Any, Any]:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slowly() -> Any:
            begun.set()
            await go.wait()
            yield whole.content

        of = client(limits=Limits(requests=1))
        whole = of.build_request("POST", "/predict", files=parts(FACE))
        await whole.aread()
        first = asyncio.create_task(
            of.post("/predict", content=slowly(), headers={"Content-Type": whole.headers["Content-Type"]})
        )
        await begun.wait()
        second = await of.post("/predict", files=parts(FACE))
        assert (await of.get("/health")).status_code == 200
        go.set()
        return await first, second

    first, second = asyncio.run(both())
    assert (first.status_code, second.status_code, second.headers["Retry-After"]) == (200, 503, "1")


def test_the_page_runs_no_code_but_its_own() -> None:
    page = parse_html(ask("GET", "/").text)
    assert not page.all("style")
    assert [script["src"] for script in page.all("script")] == ["page.js"]
    assert not [name for _, given in page.elements for name in given if name.startswith("on") or name == "style"]
    labelled = {label.get("for") for label in page.all("label")}
    assert {given.get("id") for given in page.all("input") if given.get("type") == "password"} <= labelled
    for path in ("/", "/page.css", "/page.js"):
        assert "//" not in ask("GET", path).text.replace("// ", ""), "an address of another server"
    schema = ask("GET", "/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/explain", "/model", "/health"}
    model = ask("GET", "/model").json()
    assert (model["name"], model["threshold"], model["limits"]["files"]) == ("a run", 0.5, 16)
    assert model["warning"] == ""  # a detector without validation scores says nothing of them


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0"], "add --token"),
        (["--token", "short"], "16 or more"),
        (["--port", "70000"], "70000 is not a whole number from 0 to 65535"),
        (["--host", "no such host"], "--host no such host"),
        ([], "Address already in use"),
        (["--port", "0"], "there is no run at"),
    ],
)
def test_the_command_refuses_in_a_sentence(words: list[str], sentence: str, tmp_path: Path, capfd: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = ["--port", str(taken.getsockname()[1] if not words else 0)]
        code = serve.main(["--run", str(tmp_path / "none" / "here"), *port, *words])
    out, err = capfd.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert sentence in err


def test_without_the_extra_it_says_what_to_install(monkeypatch: Any, tmp_path: Path, capfd: Any) -> None:
    for name in ("fakegan.serve.app", "fakegan.serve.guard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert serve.main(["--run", str(tmp_path), "--port", "0"]) == 1
    assert "[serve]" in capfd.readouterr().err
