"""A proxy of the tests: one that cuts connections, or speaks TLS for a server that does not."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress


class Proxy:
    """Stands before a server.

    Parameters
    ----------
    tls
        What TLS is spoken with to clients; None speaks plainly.
    cut_after
        Bytes of a reply after which the connection is cut; None lets all through.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self.cut_after: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                mine, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._tls is not None:
                    mine = self._tls.wrap_socket(mine, server_side=True)
            except OSError:  # of a client that trusts no such certificate
                mine.close()
                continue
            theirs = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [mine, theirs]
            threading.Thread(target=self._pass, args=(mine, theirs, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(theirs, mine, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if replies and self.cut_after is not None:
                    target.sendall(data[: self.cut_after])
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            one.close()
