"""The page answers to this machine's own names alone, however a request reaches it."""

import http.client
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from randfeat import cli
from randfeat.commands import app as command
from randfeat.commands.app import server


@pytest.fixture
def page(monkeypatch):
    """Make the page's application without its content, which takes a model."""

    def make(hosts=()):
        monkeypatch.setattr(server.page, "build", lambda state: SimpleNamespace(has_launched=False))

        def mounted(app: FastAPI, blocks, **settings):
            app.get("/")(lambda: "paths and previews")
            return app

        monkeypatch.setattr(server.gr, "mount_gradio_app", mounted)
        return server.application(None, hosts)

    return make


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "0.0.0.0", "[::]", ""])
def test_other_names_get_nothing(page, host):
    answer = TestClient(page()).get("/", headers={"Host": host})
    assert answer.status_code == 400
    assert "paths" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1", "127.0.0.1:80"])
def test_names_of_this_machine_are_answered(page, host):
    assert TestClient(page()).get("/", headers={"Host": host}).text == '"paths and previews"'


def test_names_that_were_told_are_answered(page):
    client = TestClient(page(command.checked_hosts(["box.example.org", "*.lab.example"])))
    for host, status in (("box.example.org", 200), ("a.lab.example", 200), ("example.org", 400)):
        assert client.get("/", headers={"Host": host}).status_code == status


def test_a_request_that_really_arrives_is_checked(page):
    made = page()
    server_of = server.application
    try:
        server.application = lambda state, hosts=(): made
        with server.bound(0) as listening, server.served(None, listening):
            for host, status in (("evil.example", 400), ("localhost", 200)):
                connection = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=30)
                connection.request("GET", "/", headers={"Host": host})
                assert connection.getresponse().status == status
                connection.close()
    finally:
        server.application = server_of


@pytest.mark.parametrize("name", ["*", "http://box", "box:7860", "", "a b", "-box", "*.*"])
def test_a_name_is_the_name_of_one_host_or_domain(name, capsys):
    with pytest.raises(ValueError, match="give the name of a host alone"):
        command.checked_hosts([name])


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_there_is_not_is_one_sentence(port, capsys):
    assert cli.main(["app", "--model", "somewhere", "--port", port, "--no-browser"]) == 1
    assert f"a port is a number from 0 to 65,535, got {port}" in capsys.readouterr().err
