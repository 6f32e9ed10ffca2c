"""A real server on a port of its own, clients of it, and workers beside the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import longhaul
import pytest

HERE = pathlib.Path(__file__).parent
PATIENCE = 30.0
"""Seconds that anything here may take before it counts as failed."""
LEASE = 1.5
"""Seconds; short, for tests in which one runs out."""


def find_binary() -> str:
    target = HERE.parents[2] / "target"
    candidates = [os.environ.get("LONGHAUL_BIN"), target / "release/longhaul", target / "debug/longhaul"]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    pytest.exit("there is no longhaul binary; run cargo build, or set LONGHAUL_BIN", returncode=4)


def soon(what: str, look: Any, patience: float = PATIENCE) -> Any:
    """Looks again and again until there is something; for what nobody sends word of."""
    until = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"still no {what} after {patience} s"
        time.sleep(0.005)


class Server:
    """``longhaul serve``, with its operations in a folder that outlives it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self.folder / "longhaul.toml"
        config.write_text(
            f"""
            listen = "127.0.0.1:{self.port}"
            data = {json.dumps(str(self.folder / "data"))}
            [[api]]
            bundle = "clouddeploy"
            [[api]]
            proto = {json.dumps(str(HERE / "library"))}
            service_config = {json.dumps(str(HERE / "library/service.yaml"))}
            settings = {json.dumps(str(HERE / "library/settings.yaml"))}
            [auth]
            mode = "off"
            """
        )
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        with open(self.folder / "log", "ab") as log:
            command = [find_binary(), "serve", "-c", str(config), "--port-file", str(port_file)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def port() -> int:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return int(port_file.read_text()) if port_file.exists() else 0

        self.port = soon("port of the server", port)

    def kill(self) -> None:
        """As ``kill -9`` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
        assert "panicked at" not in (self.folder / "log").read_text()


class Client:
    """What a client does, over HTTP."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, verb: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server.url + path, data=data, method=verb)
        with self._opener.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def start(self, verb: str = "import", source: str = "") -> str:
        """Starts an operation of the library; answers its name."""
        return self.call("POST", f"/library/v1/books:{verb}", {"source": source})["name"]

    def get(self, name: str) -> Any:
        return self.call("GET", f"/library/v1/{name}")

    def cancel(self, name: str) -> None:
        assert self.call("POST", f"/library/v1/{name}:cancel", {}) == {}

    def done(self, name: str) -> Any:
        """Waits for the end."""
        operation = self.call("POST", f"/library/v1/{name}:wait", {"timeout": f"{PATIENCE:.0f}s"})
        assert operation.get("done"), f"not done in {PATIENCE} s: {operation}"
        return operation


class Proxy:
    """Passes bytes on to the server, until it is cut."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._pairs: set[socket.socket] = set()
        self._through = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drops every connection, and refuses new ones."""
        with self._lock:
            self._through = False
            for one in self._pairs:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        with self._lock:
            self._through = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._through:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._server.port))
                except OSError:
                    near.close()
                    continue
                self._pairs |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


class Events:
    """What handlers tell the test, in order."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def say(self, event: Any) -> None:
        self._queue.put(event)

    def next(self) -> Any:
        try:
            return self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            pytest.fail(f"nothing more was said in {PATIENCE} s")

    def none_waits(self) -> bool:
        return self._queue.empty()


class BesideTest:
    """A worker in a thread of this process."""

    def __init__(self, worker: longhaul.Worker) -> None:
        self.worker = worker
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self.worker.run())
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """Ends it in order."""
        self.worker.stop()
        self.ended()

    def ended(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the worker does not end"


class WorkerProcess:
    """``tests/worker_process.py`` as a process of its own; what it writes are events."""

    def __init__(self, url: str, kind: str) -> None:
        command = [sys.executable, str(HERE / "worker_process.py"), url, kind]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self._events = Events()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.say(line.strip())
        self._events.say("")

    def next(self) -> str:
        """The next line; empty when the process has ended."""
        return self._events.next()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Any:
    """A server of the test's own."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def work(server: Server) -> Any:
    """Runs workers beside the test: ``work(handler, .., url=.., slots=..)``."""
    started: list[BesideTest] = []

    def work(*handlers: Any, url: str = server.url, **options: Any) -> BesideTest:
        options.setdefault("grace", 2.0)
        beside = BesideTest(longhaul.Worker(url, *handlers, **options))
        started.append(beside)
        return beside

    yield work
    for one in started:
        one.stop()


@pytest.fixture
def process(server: Server) -> Any:
    """Runs workers as processes: ``process(kind)``."""
    started: list[WorkerProcess] = []

    def process(kind: str, url: str = server.url) -> WorkerProcess:
        started.append(WorkerProcess(url, kind))
        return started[-1]

    yield process
    for one in started:
        one.kill()


@pytest.fixture
def proxy(server: Server) -> Any:
    proxy = Proxy(server)
    yield proxy
    proxy.close()
