"""The page as a command: in a real browser, under load, with slow clients, with mutated uploads, and to its end."""

import asyncio
import contextlib
import csv
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fakegan.runs.folder import DETECTOR_FILE
from fakegan.system.places import PROJECT
from tests.helpers import encode, fill, picture
from tests.pictures import detector

for needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(needed, reason="make install brings it")
httpx = pytest.importorskip("httpx", reason="make install brings it")
pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Served(NamedTuple):
    url: str
    process: subprocess.Popen[str]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts the page of a small detector with these options."""
    (tmp_path / "run").mkdir()
    detector("stack").save(tmp_path / "run" / DETECTOR_FILE)
    started = []

    def start(*options: str) -> Served:
        words = ["--run", str(tmp_path / "run"), "--device", "cpu", "--port", "0", *options]
        given = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "fakegan.serve", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=given, cwd=tmp_path, **pipes))  # type: ignore[call-overload]
        return Served(started[-1].stdout.readline().split()[0], started[-1])

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def open_page() -> Iterator[Callable[..., Any]]:
    """Opens a page in Chromium at a width; what its console says stands in its attribute `said`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="make install brings it")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_at(url: str, width: int) -> Any:
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.said = []
            page.on("console", lambda message: page.said.append(message.text))
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.goto(url)
            return page

        yield open_at
        browser.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_verdicts_and_sentences(
    served: Callable[..., Served], open_page: Callable[..., Any], tmp_path: Path, width: int
) -> None:
    page = open_page(served().url, width)
    pictures = sorted(fill(tmp_path / "in", 6).iterdir())
    for name, content in (("cut.png", pictures[0].read_bytes()[:-99]), ("<img src=x onerror=alert(1)>.png", b"text")):
        (tmp_path / "in" / name).write_bytes(content)
    page.locator("#about:not(:empty)").wait_for()
    page.set_input_files("#files", [str(path) for path in sorted((tmp_path / "in").iterdir())])
    page.locator("tbody tr").nth(7).wait_for()
    page.locator("#status", has_text="8 of 8 pictures done, 2 could not be judged.").wait_for()
    assert page.locator("td img[src^='data:image/png']").count() == 6 * 3
    assert page.locator("tr.error .notes").all_inner_texts() == [
        "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture",
        "truncated or damaged",
    ]
    assert page.locator("tr.error .picture").all_inner_texts() == ["<img src=x onerror=alert(1)>.png", "cut.png"]
    judged = [text for text in page.locator("td.picture").all_inner_texts() if text.startswith("0")]
    assert judged == sorted(judged)  # as they were given, whichever answer came first
    page.get_by_role("button", name="P(fake)").press("Enter")  # by keyboard
    scores = [float(text) for text in page.locator(".score span:first-child").all_inner_texts()]
    assert scores == sorted(scores)
    assert page.locator("[aria-sort=ascending]").count() == 1
    with page.expect_download() as download:
        page.click("#csv")
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert list(rows[0]) == ["file", "score", "call", "verdict", "warning", "error"]
    assert [round(float(row["score"]), 3) for row in rows if row["score"]] == scores
    page.get_by_role("button", name="Why?").first.click()
    page.get_by_text("Orange places speak for fake").wait_for()
    drawn = page.locator("td img[src^=blob]")
    assert drawn.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 64
    page.get_by_text("For programs").click()
    page.locator("dt", has_text="POST /predict").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Clear").click()
    assert not page.locator("#results").is_visible()
    assert page.said == []


def test_a_dropped_and_a_pasted_picture_are_judged_once_the_token_is_named(
    served: Callable[..., Served], open_page: Callable[..., Any]
) -> None:
    page = open_page(served("--token", "t" * 16).url, 390)
    page.get_by_label("This page asks for its token:").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("That is not the token").wait_for()
    page.locator("#token").fill("t" * 16)
    page.keyboard.press("Enter")
    page.locator("#drop").wait_for()
    assert all("401" in said for said in page.said)
    page.said.clear()
    moved = page.evaluate_handle(
        """bytes => { const moved = new DataTransfer();
        moved.items.add(new File([new Uint8Array(bytes)], "face.png", {type: "image/png"})); return moved; }""",
        list(encode(picture(1))),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": moved})
    page.locator("tbody tr").nth(0).wait_for()
    page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))", moved)
    page.locator("tbody tr").nth(1).wait_for()
    assert page.locator("tr.error").count() == 0
    page.evaluate("add([])")
    page.locator("#status", has_text="No file was in it").wait_for()
    page.evaluate(
        """data => { const no = { isFile: true, fullPath: "/gone.png", file: (_, fail) => fail(new Error("gone")) };
        const yes = { isFile: true, fullPath: "/in/face.png", file: done => done(data.files[0]) };
        const items = [no, yes].map(entry => ({ webkitGetAsEntry: () => entry }));
        return dropped({ items }); }""",
        moved,
    )
    page.locator("#status", has_text="4 of 4 pictures done, 1 could not be judged.").wait_for()
    assert page.locator("tr.error .notes").all_inner_texts() == ["the browser cannot read it"]
    names = ["in/.DS_Store", "in/Thumbs.db", "in/notes.txt", "in/list.csv"]
    page.evaluate("names => add(names.map(name => ({name, file: new File([], name)})))", names)
    said = "done, 1 could not be judged. 4 files are no pictures: .DS_Store, Thumbs.db, notes.txt, ..."
    page.locator("#status", has_text=said).wait_for()
    page.route("**/predict*", lambda route: route.fulfill(status=500, body="Internal Server Error"))
    page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))", moved)
    page.locator("tr.error", has_text="the server failed (500)").wait_for()
    assert [said for said in page.said if "500" not in said] == []


def memory(process: subprocess.Popen[str]) -> int:
    """MiB in use."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_200_requests_of_20_clients_are_answered_beside_slow_clients_and_ctrl_c_ends_it(
    served: Callable[..., Served],
) -> None:
    url, process = served("--max-requests", "8")
    place = ("127.0.0.1", int(url.rpartition(":")[2]))
    slow = [socket.create_connection(place) for _ in range(3)]
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    slow[1].sendall(head)
    slow[2].sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 999\r\n\r\n--x\r\n")
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    large = encode(Image.fromarray(noise))  # half a MB: a request that stayed would show
    refused: Counter[int] = Counter()

    def client(number: int) -> list[Any]:
        found = []
        with httpx.Client(base_url=url, timeout=100) as http:
            while len(found) < 10:
                files = [("files", ("a.png", large)), ("files", (f"{number}.png", encode(picture(number))))]
                answer = http.post("/predict", files=files)
                refused[answer.status_code] += 1
                if answer.status_code != 503:
                    found.append(answer.json())
        return found

    def all_clients() -> list[list[Any]]:
        with ThreadPoolExecutor(20) as clients:
            return list(clients.map(client, range(20)))

    first = all_clients()
    before = memory(process)
    second = all_clients()
    assert first == second
    assert all(rows == found[0] for found in first for rows in found)
    assert len({found[0][1]["score"] for found in first}) == 20
    assert set(refused) <= {200, 503}
    assert memory(process) < before + 40  # 200 requests sent 100 MB
    for waiting in slow[:2]:  # they have not sent the head of a request
        waiting.settimeout(100)
        with contextlib.suppress(ConnectionResetError):
            assert waiting.recv(1) == b""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert (out, err.strip().count("\n")) == ("", 0)
    assert "nothing was kept" in err
    for client_socket in slow:
        client_socket.close()


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A file with some bytes changed, cut out, doubled, or its end missing."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        at, length = draw.randrange(len(changed) + 1), draw.randint(1, 60)
        kind = draw.randrange(4)
        if kind == 0:
            changed[at : at + length] = draw.randbytes(length)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        else:
            del changed[max(at, 20) :]
    return bytes(changed)


def test_2000_mutated_uploads_are_judged_or_refused() -> None:
    """Half of them with a mutated picture, half with a mutated request."""
    from fakegan.serve.app import app_of
    from fakegan.serve.limits import Limits

    draw, answers = random.Random(5), Counter[str]()
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
    files = [encode(picture(i, 80), kind) for i, kind in enumerate(kinds)]

    async def ask_all() -> None:
        transport = httpx.ASGITransport(app_of(detector("pixels"), {"name": "a run"}, Limits()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for number in range(2000):
                content = draw.choice(files)
                upload = mutated(content, draw) if number % 2 else content
                asked = http.build_request("POST", "/predict", files=[("files", ("face.png", upload))])
                body = await asked.aread()
                if not number % 2:
                    body = mutated(body, draw)
                kind = {"Content-Type": asked.headers["Content-Type"]}
                answer = await http.post("/predict", content=body, headers=kind)
                if answer.status_code == 200:
                    for row in answer.json():
                        assert (row["score"] is None) == bool(row["error"])
                        answers["not read" if row["error"] else "scored"] += 1
                else:
                    assert answer.status_code == 400, answer.text
                    answers["refused"] += 1

    asyncio.run(ask_all())
    assert min(answers["scored"], answers["not read"], answers["refused"]) > 50, answers
