"""python -m fakegan.serve: a page in the browser on which pictures get verdicts, and the same for programs."""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before libraries that take long to load

import argparse
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import fakegan
from fakegan.cli.commands import Parser, add_max_megapixels, at_least, path, run, share
from fakegan.errors import FakeganError, UsageError
from fakegan.serve.limits import Limits
from fakegan.system.places import install, shown

_COMMAND = shown("serve")
_MEGAPIXELS = 64  # a larger picture takes one reader's time, and a GB as WebP
_TOKEN_LENGTH = 16  # characters at least


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit code: 1 failure, 2 usage, 130 stopped."""
    return run("serve", _serve, arguments, stopped="the page is gone, and nothing was kept.")


def _serve(words: list[str]) -> int:
    options = _parser().parse_args(words)
    limits = Limits(options.max_mib, options.max_files, options.max_requests, options.timeout)
    listening = _listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    _refuse_open_doors(host, options.token)
    with signals.exit_at_once():  # from here on nothing has to be undone
        try:
            from fakegan.serve.app import serve
            from fakegan.serve.told import told_of
        except ImportError as error:
            raise FakeganError(f"the page needs {install('serve')} ({error.name} is missing)") from None
        detector = fakegan.load(options.run, options.device, options.trust)
        detector.decide_at(options.threshold, options.max_false_alarms)
        detector.geometry = replace(detector.geometry, max_megapixels=options.max_megapixels)
        shown_host = f"[{host}]" if ":" in host else host
        print(f"http://{shown_host}:{port} shows the page; Ctrl-C ends it.", flush=True)
        serve(detector, told_of(options.run, detector), listening, limits, options.token)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        if port > 65535:  # which getaddrinfo takes for another
            raise OverflowError("there is no such port")
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError, OverflowError) as error:  # no such host, a port in use or below 1024
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else error
        raise UsageError(f"--host {host} --port {port}: {reason}; name another --port (0: a free one)") from None


def _refuse_open_doors(host: str, token: str) -> None:
    if token and (len(token) < _TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(f"--token takes {_TOKEN_LENGTH} or more letters and digits: {secrets.token_urlsafe()}")
    if not token and not ip_address(host.partition("%")[0]).is_loopback:
        raise UsageError(
            f"{host} can be reached from other computers: add --token {secrets.token_urlsafe()}, which the page then "
            "asks for"
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="A page in the browser, and a JSON API: verdicts on pictures by the detector of a finished run.",
        epilog=f"example:\n  {_COMMAND} --run outputs/RUN\n  curl -F files=@face.jpg http://127.0.0.1:8000/predict",
    )
    add, of = parser.add_argument, Limits()
    add("--run", type=path, required=True, metavar="RUN", help="the run's folder, or a file that fakegan.export wrote")
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this computer alone)")
    add("--port", type=at_least(0, 2**16 - 1), default=8000, metavar="N", help="8000; 0: a free one")
    add("--token", default=os.environ.get("FAKEGAN_TOKEN", ""), help="what clients have to name (or FAKEGAN_TOKEN)")
    add("--threshold", type=share, metavar="P", help="P(fake) from which a picture is called fake (the run's own)")
    alarms = "instead: the threshold that at most this share of real faces reaches, by validation; as in 0.01"
    add("--max-false-alarms", type=share, metavar="SHARE", help=alarms)
    add("--max-mib", type=at_least(1), default=of.mib, metavar="N", help=f"MiB of one request ({of.mib})")
    add("--max-files", type=at_least(1), default=of.files, metavar="N", help=f"pictures of one request ({of.files})")
    most = f"requests at a time ({of.requests}); others are told to come again"
    add("--max-requests", type=at_least(1), default=of.requests, metavar="N", help=most)
    seconds = f"seconds that a client may take to send a request, or to take an answer ({of.seconds})"
    add("--timeout", type=at_least(1), default=of.seconds, metavar="N", help=seconds)
    add_max_megapixels(parser, _MEGAPIXELS)
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to score (auto)")
    add("--trust", action="append", default=[], metavar="NAME", help="a package whose code the run's file may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
