"""SPECs, labels, replicates and accounts of endpoints, and where a token may go."""

from __future__ import annotations

import pytest

from harness import UsageError
from harness.endpoints import credentials, parse_endpoints


@pytest.mark.parametrize(
    ("spec", "base_url", "wire_model", "label"),
    [
        ("dedicated:ep1", "https://api.friendli.ai/dedicated/v1", "ep1", "ep1"),
        ("dedicated:ep1:geo", "https://api.friendli.ai/dedicated/v1", "ep1:geo", "ep1:geo"),
        ("mine=dedicated:ep1", "https://api.friendli.ai/dedicated/v1", "ep1", "mine"),
        ("serverless:meta/llama", "https://api.friendli.ai/serverless/v1", "meta/llama", "meta/llama"),
        ("http://127.0.0.1:80/v1", "http://127.0.0.1:80/v1", None, "127.0.0.1:80"),
        ("http://Host/v1/#m:a", "http://host/v1", "m:a", "m:a"),
        ("https://gw/team/dedicated/v1#m", "https://gw/team/dedicated/v1", "m", "m"),
    ],
)
def test_spec(spec: str, base_url: str, wire_model: str | None, label: str) -> None:
    """Each form of SPEC means one address, one model field and one label."""
    (endpoint,) = parse_endpoints([spec])
    assert (endpoint.base_url, endpoint.wire_model, endpoint.label) == (base_url, wire_model, label)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("dedicate:ep1", "Did you mean dedicated?"),
        ("nonsense", "Forms: dedicated:ENDPOINT_ID"),
        ("dedicated:", "no name after dedicated:"),
        ("dedicated:ep:", "MODEL:ADAPTER"),
        ("http://host/v2#m", "must end in /v1"),
        ("http://host", "must end in /v1"),
        ("http:///v1#m", "no host"),
        ("http://host:99999/v1", "[Pp]ort"),
        ("https://user:secret@host/v1", "no user or password"),
        ("ftp://host/v1", "Forms"),
    ],
)
def test_malformed_spec(spec: str, says: str) -> None:
    """A malformed SPEC names the flag, what is wrong, and the known forms."""
    with pytest.raises(UsageError, match=says) as caught:
        parse_endpoints([spec])
    assert str(caught.value).startswith("--endpoint")
    assert "secret" not in str(caught.value)


def test_labels_are_unique() -> None:
    """Equal endpoints get labels of their own; a label given twice is an error."""
    labels = [
        endpoint.label for endpoint in parse_endpoints(["dedicated:a", "dedicated:a", "a#2=dedicated:b"])
    ]
    assert labels[0] == "a"
    assert len(set(labels)) == 3
    with pytest.raises(UsageError, match="'x' is given twice"):
        parse_endpoints(["x=dedicated:a", "x=dedicated:b"])


def test_replicates_are_numbered() -> None:
    """The n-th endpoint of equal identity is the n-th replicate, whatever it is called."""
    first, other, second = parse_endpoints(["dedicated:a", "dedicated:b", "again=dedicated:a"])
    assert (first.replicate, other.replicate, second.replicate) == (0, 0, 1)


def test_adapters_share_an_account() -> None:
    """Adapters of one endpoint draw on one budget."""
    base, adapter, other = parse_endpoints(["dedicated:a", "dedicated:a:x", "dedicated:b"])
    assert base.account == adapter.account != other.account


ENVIRON = {"FRIENDLI_TOKEN": "flp_abc", "FRIENDLI_TEAM": "team1"}


@pytest.mark.parametrize(
    "spec", ["dedicated:a", "https://host/v1#m", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"]
)
def test_token_goes_to_the_vendor_to_loopback_and_to_https(spec: str) -> None:
    """The token is sent where it cannot be read on the way, and shows in no repr."""
    (endpoint,) = parse_endpoints([spec])
    found = credentials(endpoint, ENVIRON)
    assert found.headers() == {"Authorization": "Bearer flp_abc", "X-Friendli-Team": "team1"}
    assert "flp_abc" not in repr(found)


def test_token_never_crosses_a_network_in_the_clear() -> None:
    """An http address off loopback is refused while a token is set, and fine without one."""
    (endpoint,) = parse_endpoints(["http://10.0.0.1/v1#m"])
    with pytest.raises(UsageError, match="not encrypted") as caught:
        credentials(endpoint, ENVIRON)
    assert "flp_abc" not in str(caught.value)
    assert credentials(endpoint, {}).headers() == {}


def test_vendor_needs_a_token() -> None:
    """A vendor endpoint without a token is wrong before anything is sent."""
    (endpoint,) = parse_endpoints(["serverless:m"])
    with pytest.raises(UsageError, match="FRIENDLI_TOKEN"):
        credentials(endpoint, {"FRIENDLI_TOKEN": " "})


def test_token_that_no_header_can_carry() -> None:
    """A token with a line break inside is refused without showing it."""
    (endpoint,) = parse_endpoints(["serverless:m"])
    with pytest.raises(UsageError, match="no header can carry") as caught:
        credentials(endpoint, {"FRIENDLI_TOKEN": "flp_a\nb"})
    assert "flp_a" not in str(caught.value)
