"""Names, routes, endpoints: values that refuse to be wrong, each with a sentence."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePath
from typing import Any

import pytest

from slim_actors import Anycast, ConfigurationError, Jwt, Oidc, Runtime, StaticJwt, Tls, Unicast
from slim_actors.endpoints import Endpoint
from slim_actors.messages import Body
from slim_actors.names import check_name
from slim_actors.wire import encode_body


@pytest.mark.parametrize("name", ["a/b", "a/b/c/d", "a//c", "a/b/c ", "", "a/b/c\n", "a b/c/d"])
def test_a_name_that_is_not_three_parts_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="three parts"):
        check_name(name)
    with pytest.raises(ConfigurationError, match="three parts"):
        Anycast(name)
    with pytest.raises(ConfigurationError, match="three parts"):
        Unicast(name)


def test_routes_are_equal_by_value_and_can_be_keys() -> None:
    assert Anycast("a/b/c", mls=True) == Anycast("a/b/c", mls=True)
    assert len({Unicast("a/b/c"), Unicast("a/b/c"), Unicast("a/b/c", mls=True)}) == 2


def test_the_retransmission_interval_is_seconds_or_a_timedelta() -> None:
    assert Anycast("a/b/c", timeout=timedelta(seconds=5)).timeout == Anycast("a/b/c", timeout=5).timeout == 5


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"max_retries": -1}]
)
def test_a_route_refuses_values_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        Anycast("a/b/c", **wrong)  # type: ignore[arg-type]


def test_an_instance_that_is_no_id_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not the id of an instance"):
        Unicast("a/b/c", instance="7")


def test_a_wire_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'frames' or 'bytes'"):
        Unicast("a/b/c", wire="json")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "meant", "listen"),
    [
        ("127.0.0.1:5", "http://127.0.0.1:5", "127.0.0.1:5"),
        ("http://localhost:5/", "http://localhost:5", "127.0.0.1:5"),
        ("http://mylocalhost.example:5", "http://mylocalhost.example:5", "mylocalhost.example:5"),
        ("ws://127.0.0.1:5", "ws://127.0.0.1:5", "ws://127.0.0.1:5"),
        ("http://[::1]:5", "http://[::1]:5", "[::1]:5"),
        ("unix:///tmp/s.sock", "unix:///tmp/s.sock", "unix:///tmp/s.sock"),
    ],
)
def test_endpoints_are_read_as_users_write_them(text: str, meant: str, listen: str) -> None:
    endpoint = Endpoint.parse(text)
    assert str(endpoint) == meant
    assert endpoint.to_listen() == listen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "http://",
        "http://host",
        "http://h:x",
        "ftp://h:1",
        "unix://",
        "h:70000",
        "unix:///\0",
        "unix:///\udcff",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an endpoint"):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    ["unix:///run/slim.sock", "unix://./slim.sock", "unix://.sock", f"unix:///{'x' * 90}", "http://h:1"],
)
def test_other_spellings_of_an_endpoint_mean_the_same_place(text: str) -> None:
    endpoint = Endpoint.parse(text)
    assert endpoint.respelled(0) == str(endpoint)
    for number in (1, 2, 7, 100):
        again = Endpoint.parse(endpoint.respelled(number).removesuffix(f"/r{number}"))
        assert again.host == endpoint.host
        assert PurePath(again.path) == PurePath(endpoint.path)


@pytest.mark.parametrize("text", ["unix:///run/slim.sock", "http://h:1"])
def test_other_spellings_differ_and_do_not_grow(text: str) -> None:
    endpoint = Endpoint.parse(text)
    assert len({endpoint.respelled(number) for number in range(4096)}) == 4096
    assert all(len(endpoint.respelled(number)) <= len(text) + 24 for number in (4095, 10**6, 10**12))


def test_a_unix_path_that_the_system_cannot_take_is_refused() -> None:
    longest = f"/{'ä' * 51}"
    assert Endpoint.parse(f"unix://{longest}").path == longest
    with pytest.raises(ConfigurationError, match="has 109 bytes, but a Unix socket's may have"):
        Endpoint.parse(f"unix:///{'ä' * 54}")


def test_a_runtime_refuses_wrong_values_before_it_connects() -> None:
    with pytest.raises(ConfigurationError, match="three parts"):
        Runtime(name="bob")
    with pytest.raises(ConfigurationError, match="is not an endpoint"):
        Runtime("nowhere")
    with pytest.raises(ConfigurationError, match="lost_after"):
        Runtime(lost_after=0)


def test_a_route_that_came_in_a_message_equals_the_one_that_was_sent() -> None:
    # Who reads a message does not call the class: a route has its fields and nothing else.
    route = Anycast("test/ns/echo", mls=True)
    read = Body(Anycast).read(encode_body(route), "A route")
    assert {route: "known"}[read] == "known"


SECRET = "this is the secret itself, not a SharedSecret"


@pytest.mark.parametrize(
    ("argument", "value"),
    [("identity", SECRET), ("tls", SECRET), ("auth", SECRET), ("limits", 5), ("store", 5), ("endpoint", 5)],
)
async def test_an_argument_of_another_kind_is_refused_and_not_shown(
    endpoint: str, argument: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument} is .*, but must be") as caught:
        async with Runtime(**{"endpoint": endpoint, argument: value}):
            pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Jwt(5, audience="a", issuer="b"),  # type: ignore[arg-type]
        lambda: Jwt("", audience="a", issuer="b"),
        lambda: Jwt("key", audience=None, issuer="b"),  # type: ignore[arg-type]
        lambda: Jwt("key", audience=5, issuer="b"),  # type: ignore[arg-type]
        lambda: Jwt("key", audience="a", issuer=""),
        lambda: Jwt("key", audience="a", issuer=["b", "c"]),  # type: ignore[arg-type]
        lambda: Jwt("key", audience="a", issuer="b", subject=5),  # type: ignore[arg-type]
        lambda: StaticJwt("token", audience="a", issuer=None),  # type: ignore[arg-type]
        lambda: Tls(ca=5),  # type: ignore[arg-type]
        lambda: Oidc(5),  # type: ignore[arg-type]
    ],
)
def test_an_identity_with_a_value_of_another_kind_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()
