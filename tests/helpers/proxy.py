"""A reverse proxy that shows a server below a path, as nginx would: HTTP, events and WebSockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def below(path: str, upstream: str, strips: bool) -> Iterator[str]:
    """The URL below which `upstream` is shown; `strips`: it does not see `path`."""
    target = urlsplit(upstream)
    assert target.hostname
    assert target.port
    address = target.hostname, target.port
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    arguments = server.accept()[0], address, path, strips
                    threading.Thread(target=_serve, args=arguments, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}{path}"


def _serve(client: socket.socket, address: tuple[str, int], path: str, strips: bool) -> None:
    """One request, its answer, and the end of the connection."""
    with client, suppress(OSError):
        data = b""
        while b"\r\n\r\n" not in data:
            part = client.recv(65536)
            if not part:
                return
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        first, *headers = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        if not target.startswith(f"{path}/"):
            client.sendall(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        target = target.removeprefix(path) if strips else target
        if not any(line.lower().startswith("upgrade:") for line in headers):
            headers = [line for line in headers if not line.lower().startswith("connection:")]
            headers.append("Connection: close")
        lines = "\r\n".join([f"{method} {target} {version}", *headers])
        with socket.create_connection(address) as server:
            server.sendall(lines.encode("latin-1") + b"\r\n\r\n" + body)
            threading.Thread(target=_pipe, args=(client, server), daemon=True).start()
            _pipe(server, client)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
