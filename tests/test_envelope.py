"""An envelope is opened by steps, and each refuses for a reason of its own."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jws import deserialize_compact, serialize_compact, serialize_json

from agent import jws, strict_json
from agent.documents import BODIES, Bundle, Command, Head, Page, Pin, Root, read
from agent.envelope import CAPS, Envelope, Kind, Reason, Refused, issue, new_id
from agent.jws import Signer, encoded
from tests.test_jws import REGISTRY, okp

A, B, C = (Signer(Ed25519PrivateKey.generate()) for _ in range(3))
KEYS = {each.kid: each.public for each in (A, B, C)}
CLAIMS: dict[str, Any] = {"aud": "acme/van-0042", "iat": 1_795_521_600, "exp": 1_795_608_000, "ver": 3}
TIME = {"nonce": "A" * 22, "utc": 1_795_521_600_000}


def signed(kind: Kind = Kind.TIME, *signers: Signer, **changes: Any) -> bytes:
    """Whatever the claims are."""
    claims = {"iss": A.kid, **CLAIMS, "jti": new_id(), "body": TIME, **changes}
    return jws.sign(strict_json.dumps(claims), kind.typ, signers or [A])


def refusal(kind: Kind, raw: bytes, threshold: int = 1) -> Reason:
    with pytest.raises(Refused) as refused:
        opened(kind, raw, threshold)
    return refused.value.reason


def opened(kind: Kind, raw: bytes, threshold: int = 1) -> Any:
    envelope = Envelope.parse(kind, raw)
    signers = envelope.signers(KEYS, threshold)
    return read(kind, envelope, signers, envelope.claims(kind))


def test_what_is_issued_is_read_back() -> None:
    document = opened(Kind.TIME, issue(Kind.TIME, TIME, [B], **CLAIMS))
    assert (document.kind, document.name, document.ver) == (Kind.TIME, "time", 3)
    assert (document.signers, document.claims.iss) == ((B.kid,), B.kid)
    assert document.body.model_dump() == TIME


def test_a_document_of_several_is_read_back() -> None:
    document = opened(Kind.TIME, issue(Kind.TIME, TIME, [B, A], **CLAIMS), threshold=2)
    assert document.signers == (B.kid, A.kid)


def test_the_hash_of_a_document_is_that_of_all_its_bytes() -> None:
    raw = issue(Kind.TIME, TIME, [A], **CLAIMS)
    assert opened(Kind.TIME, raw).pin == Pin(ver=3, sha256=Envelope.parse(Kind.TIME, raw).sha256)


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_over_the_cap_of_its_kind_is_not_even_read(kind: Kind) -> None:
    assert refusal(kind, b"." * (CAPS[kind] + 1)) == Reason.OVERSIZED
    assert refusal(kind, b"." * CAPS[kind]) == Reason.MALFORMED


def test_a_signature_of_one_kind_never_passes_as_another() -> None:
    assert refusal(Kind.COMMAND, signed(Kind.TIME)) == Reason.WRONG_TYPE


def test_nobody_known_has_signed() -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    assert refusal(Kind.TIME, signed(Kind.TIME, stranger)) == Reason.UNKNOWN_KEY


def test_a_signature_that_is_not_that_of_its_key() -> None:
    head, payload, _ = signed().decode().split(".")
    raw = f"{head}.{payload}.{encoded(bytes(64))}".encode()
    assert refusal(Kind.TIME, raw) == Reason.BAD_SIGNATURE


def test_fewer_signatures_than_it_takes() -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    assert refusal(Kind.TIME, signed(Kind.TIME, A, stranger), threshold=2) == Reason.BELOW_THRESHOLD


WRONG_CLAIMS = {
    "another issuer": {"iss": B.kid},
    "no issuer": {"iss": ""},
    "a version of nothing": {"ver": 0},
    "a version in words": {"ver": "3"},
    "a true version": {"ver": True},
    "a time before time": {"iat": -1},
    "a time without end": {"exp": 10**12},
    "a short id": {"jti": "A" * 21},
    "an id with spare bits": {"jti": "A" * 21 + "B"},
    "a body that is no object": {"body": []},
    "one claim more": {"nbf": 1},
}


@pytest.mark.parametrize("changes", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS)
def test_claims_are_exactly_what_they_should_be(changes: dict[str, Any]) -> None:
    assert refusal(Kind.TIME, signed(**changes)) == Reason.SCHEMA


def test_a_claim_that_is_missing() -> None:
    claims = {"iss": A.kid, **CLAIMS, "body": TIME}
    assert refusal(Kind.TIME, jws.sign(strict_json.dumps(claims), Kind.TIME.typ, [A])) == Reason.SCHEMA


def test_a_payload_that_is_no_json_of_ours() -> None:
    assert refusal(Kind.TIME, jws.sign(b'{"ver":1.5}', Kind.TIME.typ, [A])) == Reason.MALFORMED


def test_nothing_is_issued_that_no_device_would_take() -> None:
    with pytest.raises(Refused) as refused:
        issue(Kind.COMMAND, {"text": "x" * 9000}, [A], **CLAIMS)
    assert refused.value.reason == Reason.OVERSIZED


# -- bodies -----------------------------------------------------------------------------------------

HASH = "0" * 64


def root(**changes: Any) -> dict[str, Any]:
    keys = {each.kid: encoded(each.public) for each in (A, B, C)}
    roles = {"root": {"kids": list(keys), "threshold": 2}, "head": {"kids": [A.kid], "threshold": 1}}
    return {"epoch": 1, "keys": keys, "roles": roles, **changes}


def roles(**changes: Any) -> dict[str, Any]:
    return root(roles={**root()["roles"], **changes})


def bundle(*pages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    about = {"kind": "roster", "scope": "depot-7", "as_of": 1, "buckets": 4, "rows": 9}
    return {**about, "pages": list(pages), **changes}


def page(bucket: int, fill: str = "0", **changes: Any) -> dict[str, Any]:
    return {"bucket": bucket, "ver": 1, "sha256": fill * 64, "size": 100, **changes}


def command(**changes: Any) -> dict[str, Any]:
    return {"class": "A", "name": "status", "args": {}, "operator": "", "reason": "", **changes}


RIGHT: list[tuple[Kind, dict[str, Any]]] = [
    (Kind.ROOT, root()),
    (Kind.HEAD, {"documents": {"bundle/roster": {"ver": 1, "sha256": HASH}}}),
    (Kind.CONFIG, {"anything": {"at": "all"}}),
    (Kind.BUNDLE, bundle(page(-1), page(3, "1"))),
    (
        Kind.REVOCATIONS,
        {"subjects": ["drv-7"], "credentials": ["0" * 32], "keys": [A.kid], "grants": ["g-1"]},
    ),
    (Kind.COMMAND, command(nonce="A" * 22)),
    (Kind.TIME, TIME),
]


@pytest.mark.parametrize(("kind", "body"), RIGHT, ids=[kind for kind, _ in RIGHT])
def test_a_body_is_read_as_its_kind_and_written_as_it_was(kind: Kind, body: dict[str, Any]) -> None:
    document = opened(kind, issue(kind, body, [A], **CLAIMS))
    assert isinstance(document.body, BODIES[kind])
    assert document.body.model_dump(by_alias=True) == body
    assert opened(kind, issue(kind, document.body, [A], **CLAIMS)).body == document.body


WRONG: dict[str, tuple[Kind, dict[str, Any]]] = {
    "a root that one could change alone": (
        Kind.ROOT,
        roles(root={"kids": [A.kid, B.kid], "threshold": 1}),
    ),
    "a root without a root": (Kind.ROOT, root(roles={})),
    "a root of an unknown role": (Kind.ROOT, roles(king={"kids": [A.kid], "threshold": 1})),
    "a role of a key that is not there": (Kind.ROOT, roles(head={"kids": ["0" * 16], "threshold": 1})),
    "a role that nobody could fill": (Kind.ROOT, roles(head={"kids": [A.kid], "threshold": 2})),
    "a role that one fills twice": (Kind.ROOT, roles(head={"kids": [A.kid, A.kid], "threshold": 2})),
    "a key under the name of another": (
        Kind.ROOT,
        root(keys={**root()["keys"], A.kid: encoded(B.public)}),
    ),
    "a key of 31 bytes": (Kind.ROOT, root(keys={**root()["keys"], A.kid: encoded(bytes(31))})),
    "a key with padding": (Kind.ROOT, root(keys={**root()["keys"], A.kid: encoded(A.public) + "="})),
    "an emergency key that is a command key": (
        Kind.ROOT,
        roles(command={"kids": [A.kid], "threshold": 1}, emergency={"kids": [A.kid], "threshold": 1}),
    ),
    "a head with an unknown document": (
        Kind.HEAD,
        {"documents": {"bundle/keys": {"ver": 1, "sha256": HASH}}},
    ),
    "a head with half a hash": (Kind.HEAD, {"documents": {"root": {"ver": 1, "sha256": HASH[:32]}}}),
    "buckets that are no power of two": (Kind.BUNDLE, bundle(buckets=3)),
    "too many buckets": (Kind.BUNDLE, bundle(buckets=2048)),
    "a page of no bucket": (Kind.BUNDLE, bundle(page(4))),
    "two pages of one bucket": (Kind.BUNDLE, bundle(page(1), page(1, "1"))),
    "one page for two buckets": (Kind.BUNDLE, bundle(page(1), page(2))),
    "a page above the cap": (Kind.BUNDLE, bundle(page(1, size=96 * 1024 + 1))),
    "a bundle of an unknown kind": (Kind.BUNDLE, bundle(kind="keys")),
    "a bundle with a key more": (Kind.BUNDLE, bundle(extra=1)),
    "a command of an unknown class": (Kind.COMMAND, command(**{"class": "F"})),
    "a command with a name that is no name": (Kind.COMMAND, command(name="Open Door")),
    "a command with a short nonce": (Kind.COMMAND, command(nonce="abc")),
    "revocations that say too little": (Kind.REVOCATIONS, {"subjects": []}),
    "a time of another shape": (Kind.TIME, {"nonce": "A" * 22, "utc": "now"}),
}


@pytest.mark.parametrize(("kind", "body"), WRONG.values(), ids=WRONG)
def test_a_body_of_another_shape_is_refused(kind: Kind, body: dict[str, Any]) -> None:
    assert refusal(kind, issue(kind, body, [A], **CLAIMS)) == Reason.SCHEMA


def test_models_write_what_they_read() -> None:
    """A fleet that builds models signs the same as one that builds dicts."""
    made = Bundle(kind="roster", scope="s", as_of=1, buckets=1, rows=0, pages=[Page(**page(-1))])
    assert opened(Kind.BUNDLE, issue(Kind.BUNDLE, made, [A], **CLAIMS)).body == made
    head = Head(documents={"root": Pin(ver=1, sha256=HASH)})
    assert opened(Kind.HEAD, issue(Kind.HEAD, head, [A], **CLAIMS)).body == head
    asked = Command(rank="C", name="open_door", args={"door": 3}, operator="op-1", reason="stuck")
    assert opened(Kind.COMMAND, issue(Kind.COMMAND, asked, [A], **CLAIMS)).body == asked
    assert opened(Kind.ROOT, issue(Kind.ROOT, Root(**root()), [A, B], **CLAIMS)).body == Root(**root())


# -- with others ------------------------------------------------------------------------------------


def test_a_document_that_another_implementation_has_signed_is_the_document() -> None:
    claims = strict_json.dumps({"iss": A.kid, **CLAIMS, "jti": new_id(), "body": TIME})
    headers = [{"alg": jws.ALG, "kid": each.kid, "typ": Kind.TIME.typ} for each in (A, B)]
    one = serialize_compact(headers[0], claims, okp(A), registry=REGISTRY).encode()
    both = serialize_json(
        [{"protected": header} for header in headers],
        claims,
        lambda each: okp(A if each.headers()["kid"] == A.kid else B),
        registry=REGISTRY,
    )
    assert opened(Kind.TIME, one).signers == (A.kid,)
    assert opened(Kind.TIME, json.dumps(both).encode(), threshold=2).signers == (A.kid, B.kid)


def test_another_implementation_reads_what_we_issue() -> None:
    raw = issue(Kind.TIME, TIME, [A], **CLAIMS)
    theirs = deserialize_compact(raw, okp(A), registry=REGISTRY)
    assert theirs.headers()["typ"] == Kind.TIME.typ
    assert json.loads(theirs.payload)["body"] == TIME
