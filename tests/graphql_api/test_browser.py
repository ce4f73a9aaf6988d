"""What a real browser does with the server: our page, and pages of other origins."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest

from virtualfs.config import Server

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look with")

ELSEWHERE = """<!doctype html><title>elsewhere</title><pre id="found"></pre><script>
const [url, token] = %s;
const ask = async (query, headers) => {
  try {
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify({ query }) });
    return { id: answer.headers.get("x-request-id") !== null, body: await answer.json() };
  } catch (error) { return { refused: error.name }; }
};
(async () => {
  const json = { "content-type": "application/json" };
  const query = '{ airport(origin: "EWR") { airportWeather { temp } } }';
  document.getElementById("found").textContent = JSON.stringify({
    query: await ask(query, json),
    mutation: await ask('mutation { invalidate(view: "airport_weather") }',
                        { ...json, authorization: "Bearer " + token }),
    text: await ask('mutation { invalidate(view: "airport_weather") }', { "content-type": "text/plain" }),
  });
})();
</script>"""  # noqa: E501


def dom(url, folder):
    """Return a page as the browser has it once its scripts have run."""
    ran = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={folder}", "--virtual-time-budget=8000",
            "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return ran.stdout


@pytest.fixture
def elsewhere(tmp_path):
    """Serve a folder from another origin."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_the_page_shows_the_schema_and_an_example(serve, store, tmp_path):
    page = dom(serve(store) + "/query", tmp_path / "profile")
    browser = page.split('id="browser"')[1]
    for text in ("featureViews", "airports", "scoring"):
        assert text in browser
    assert "One airport, now</option>" in page
    assert "VirtualFS" in page


def allowing(store, *origins):
    settings = Server(cors_origins=origins, token="secret")
    store.config = store.config.model_copy(update={"server": settings})
    return store


def asked_from(elsewhere, url, tmp_path):
    (tmp_path / "page.html").write_text(ELSEWHERE % json.dumps([url + "/graphql", "secret"]))
    page = dom(elsewhere + "/page.html", tmp_path / "profile")
    return json.loads(re.search(r'<pre id="found">(.*?)</pre>', page, re.S)[1])


def test_pages_of_an_allowed_origin_may_ask_after_a_preflight(serve, store, elsewhere, tmp_path):
    url = serve(allowing(store, elsewhere))
    found = asked_from(elsewhere, url, tmp_path)
    assert found["query"] == {
        "id": True, "body": {"data": {"airport": {"airportWeather": {"temp": 41.0}}}},
    }  # fmt: skip
    assert "data" in found["mutation"]["body"]
    # This goes without a preflight, and is refused by the server.
    assert "errors" in found["text"]["body"]


@pytest.mark.parametrize("origins", [[], ["http://example.org"]])
def test_pages_of_other_origins_may_not(serve, store, elsewhere, tmp_path, origins):
    url = serve(allowing(store, *origins))
    found = asked_from(elsewhere, url, tmp_path)
    assert {name: "refused" in answer for name, answer in found.items()} == {
        "query": True, "mutation": True, "text": True,
    }  # fmt: skip
