"""`lcsearch serve`: real processes, and what it says of options that are wrong."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kit.endpoints import Served, command, fetch, question
from kit.forecasters import ask, laws, study
from kit.sessions import wait_for
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.errors import InvalidValue
from lcsearch.host import wire
from lcsearch.host.hosted import Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HttpLink
from lcsearch.host.serving import Address

TOKEN = "a-secret-of-some-length"
SEEN = study(laws(5), [("live", laws(1, seed=1)[0, :9])])


@pytest.fixture(scope="module")
def one(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with command(tmp_path_factory.mktemp("one"), "--weights", str(small), "--device", "cpu") as found:
        yield found


def test_it_answers_as_the_weights_do_in_process(one: Served, small: Path) -> None:
    own = Pretrained(file=small)
    found = fetch(one.url, body=question(SEEN, ask(SEEN), own.version))
    assert found.status == 200
    answer = wire.unpack_answer(found.body, len(ask(SEEN)), 1.0, own.version)
    np.testing.assert_allclose(answer.p_beat(0.4), own.forecast(SEEN, ask(SEEN)).p_beat(0.4), atol=1e-5)
    assert json.loads(fetch(one.url, "/version").body)["device"] == "cpu"


def test_one_line_says_where_and_how(one: Served, small: Path) -> None:
    version = Pretrained(file=small).version
    assert one.log.read_text() == (
        f'network=small0 {version} on cpu answers at {one.url}: host="{one.url}", or LCSEARCH_HOST={one.url}\n'
    )


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl that would make a certificate")
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    words += ["-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-out", str(cert), "-keyout", str(key)]
    subprocess.run(words, check=True, capture_output=True)
    return cert, key


def test_tls_and_a_token_from_a_file(small: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    tls = ["--tls-cert", str(cert), "--tls-key", str(key)]
    with command(tmp_path, "--weights", str(small), "--token-file", str(secret), *tls, listen="0.0.0.0:0") as found:
        assert found.url == f"https://{socket.gethostname()}:{found.port}"  # a name that another machine can use
        url = f"https://127.0.0.1:{found.port}"
        trusting = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"{url}/health", context=trusting) as page:
            assert page.read() == b"ready"
        del page
        own = Pretrained(file=small)
        right = HttpLink(url, TOKEN, str(cert))
        hosted = Hosted(own, right)
        hosted.prepare()
        answers = hosted.forecast(SEEN, ask(SEEN))
        np.testing.assert_allclose(answers.p_beat(0.4), own.forecast(SEEN, ask(SEEN)).p_beat(0.4), atol=1e-5)
        assert hosted.unanswered == 0
        for link in (HttpLink(url, TOKEN), HttpLink(url, "wrong", str(cert)), HttpLink(url.replace("s", "", 1), TOKEN)):
            other = Hosted(own, link)
            other.prepare()
            assert other.unanswered == 1
            link.close()
        with socket.create_connection(("127.0.0.1", found.port)):  # a handshake that does not end holds nothing up
            assert found.end() == 0
        assert TOKEN not in found.log.read_text()
        assert found.log.read_text().count("\n") == 1
        right.close()


@pytest.mark.parametrize("error", [ssl.SSLEOFError(8, "EOF occurred"), BrokenPipeError(32, "Broken pipe")])
def test_a_connection_that_the_host_has_closed_is_opened_anew(
    one: Served, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Over TLS it fails by an error of its own; every other look of a study with long epochs would be lost."""
    link, sound = HttpLink(one.url), http.client.HTTPConnection.getresponse
    assert link.about(30)["ready"]
    used: list[http.client.HTTPConnection] = []

    def fails_once(self: http.client.HTTPConnection) -> http.client.HTTPResponse:
        used.append(self)
        if len(used) == 1:
            raise error
        return sound(self)

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", fails_once)
    assert link.about(30)["ready"]
    assert len(used) == 2
    assert used[0] is not used[1]
    link.close()


HANGING = """
import time
import lcsearch.host.command as command
import lcsearch.host.serving as serving

class Hanging(command.OnDevice):
    device = "cuda"

    def forecast_many(self, asks):
        print("asked", flush=True)
        time.sleep(600)

command.OnDevice, serving.LAST_S, serving.serve.__kwdefaults__["drain"] = Hanging, 0.5, 1
"""


def test_a_device_that_hangs_does_not_keep_it(small: Path, tmp_path: Path) -> None:
    with command(tmp_path, "--weights", str(small), wrapper=HANGING) as found, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(fetch, found.url, body=question(SEEN, ask(SEEN), Pretrained(file=small).version))
        wait_for(lambda: "asked" in found.log.read_text())
        assert found.end() == 0
        assert (asking.result().status, asking.result().body) == (503, b"the host is being shut down")


def says(*options: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["serve", *options], env=env)
    return done.exit_code, done.stderr.removesuffix("\n")


MAKE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe())".'


def test_a_wide_address_demands_a_token() -> None:
    for listen in ("0.0.0.0:0", "[::]:0"):
        assert says("--listen", listen, env={"LCSEARCH_HOST_TOKEN": ""}) == (
            2,
            "LCSEARCH_HOST_TOKEN: expected a token where other machines can ask, got "
            f"'--listen {listen} without one'. Name one in --token-file or LCSEARCH_HOST_TOKEN, or listen on "
            "127.0.0.1.",
        )


def test_a_token_is_long_enough_to_be_one(tmp_path: Path) -> None:
    assert says(env={"LCSEARCH_HOST_TOKEN": "short"}) == (
        2,
        f"LCSEARCH_HOST_TOKEN: expected a token of at least 16 letters and digits, got '5 characters'. {MAKE}",
    )
    path = tmp_path / "token"
    assert says("--token-file", str(path)) == (
        2,
        f"{path}: expected a file that holds the token, got No such file or directory.",
    )
    for text in ("", "two words that are long", "ä" * 20):
        path.write_text(text)
        code, said = says("--token-file", str(path))
        assert (code, said.partition(":")[0]) == (2, str(path))
        assert "expected a token of at least 16 letters and digits" in said
    path.write_bytes(b"\xff" * 20)
    assert says("--token-file", str(path))[1] == f"{path}: expected a file that holds the token, got no text."


def test_certificate_and_key_are_a_pair(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    _, other = certificate(tmp_path, "other")
    text = "expected --tls-cert and --tls-key together, got --tls-cert alone."
    assert says("--listen", "127.0.0.1:0", "--tls-cert", str(cert)) == (2, text)
    text = "expected --tls-cert and --tls-key together, got --tls-key alone."
    assert says("--listen", "127.0.0.1:0", "--tls-key", str(key)) == (2, text)
    missing = tmp_path / "none"
    assert says("--listen", "127.0.0.1:0", "--tls-cert", str(missing), "--tls-key", str(key)) == (
        2,
        f"{missing}: expected a PEM file for TLS, got no such file.",
    )
    wanted = "expected a certificate and its key, unencrypted, in PEM files, got others ("
    for first, second in ((cert, other), (key, cert)):
        code, said = says("--listen", "127.0.0.1:0", "--tls-cert", str(first), "--tls-key", str(second))
        assert (code, said.startswith(f"{first}, {second}: {wanted}")) == (2, True), said


@pytest.mark.parametrize("text", ["8642", "127.0.0.1", ":8642", "a:b", "a:65536", "::1:80", "[::1]", "[a]:1", ""])
def test_an_address_is_a_name_and_a_port(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Address.of(text)
    assert str(caught.value) == (f"--listen: expected HOST:PORT as in 127.0.0.1:8642, port 0 for any, got {text!r}.")
    assert str(Address.of("[::1]:8642")) == "[::1]:8642"
    assert Address.of("box.lan:80") == Address("box.lan", 80)


def test_an_address_that_is_taken_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert says("--listen", where) == (
            3,
            f"--listen: expected an address that is free on this machine, got {where} (Address already in use). "
            "Name another; port 0 is any free one.",
        )


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu ", "cuda:", "mps"])
def test_an_unknown_device(device: str) -> None:
    assert says("--device", device) == (2, f"--device: expected auto, cpu, cuda or cuda:N, got {device!r}.")


def test_weights_that_are_none(tmp_path: Path) -> None:
    code, said = says("--weights", str(tmp_path / "none"))
    assert (code, said.startswith(f"{tmp_path / 'none'}: expected a file of weights, got")) == (3, True)


def test_a_model_that_does_not_load_ends_it(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Pretrained) -> None:
        raise OSError("libtorch.so: no such file")

    monkeypatch.setattr(Pretrained, "_load", broken)
    code, said = says("--listen", "127.0.0.1:0", "--weights", str(small), "--device", "cpu")
    assert (code, said) == (
        3,
        f"{small}: expected weights that load on cpu, got OSError: libtorch.so: no such file. See that torch works "
        "there.",
    )


def test_sigint_ends_it_well_and_its_port_is_free_at_once(one: Served, tmp_path: Path) -> None:
    """The last test here: it ends the one that the others ask."""
    with socket.create_connection(("127.0.0.1", one.port)):  # one that is idle holds nothing up
        assert one.end(signal.SIGINT) == 0
    assert not (one.log.parent / "ready.json").exists()
    assert one.log.read_text().count("\n") == 1
    made = Address("127.0.0.1", one.port).bound()
    made.close()
