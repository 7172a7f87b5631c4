"""Signatures of others are read, ours are read by others, and nothing that is not exactly one is taken."""

import base64
import json
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey
from joserfc.jws import GeneralJSONSerialization, JWSRegistry, deserialize_compact, serialize_compact
from joserfc.jws import deserialize_json as deserialize_general
from joserfc.jws import serialize_json as serialize_general

from agent.jws import (
    SIGNATURES,
    BadJws,
    Jws,
    Signer,
    cosign,
    decoded,
    encoded,
    kid_of,
    sign,
    verifies,
)

TYP = "postern-head+jws"
WYCHEPROOF = Path(__file__).parent / "vectors" / "wycheproof-ed25519.txt"


def signer(seed: int) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


A, B, C = signer(1), signer(2), signer(3)
KEYS = {each.kid: each.public for each in (A, B, C)}
PAYLOAD = b'{"ver":17}'
COMPACT = sign(PAYLOAD, TYP, [A])
GENERAL = sign(PAYLOAD, TYP, [A, B])


def okp(each: Signer) -> OKPKey:
    private = {"kty": "OKP", "crv": "Ed25519", "d": encoded(each.private.private_bytes_raw())}
    return OKPKey.import_key({**private, "x": encoded(each.public), "kid": each.kid})


REGISTRY = JWSRegistry(algorithms=["Ed25519"])


def header(each: Signer, **other: str) -> dict[str, Any]:
    return {"alg": "Ed25519", "kid": each.kid, "typ": TYP, **other}


# -- with others ------------------------------------------------------------------------------------


def test_joserfc_reads_what_we_sign() -> None:
    theirs = deserialize_compact(COMPACT, okp(A), registry=REGISTRY)
    assert (theirs.payload, theirs.headers()) == (PAYLOAD, header(A))


def test_we_read_what_joserfc_signs() -> None:
    raw = serialize_compact(header(B), PAYLOAD, okp(B), registry=REGISTRY).encode()
    jws = Jws.parse(raw)
    assert (jws.signers(KEYS), jws.typ, decoded(jws.payload)) == ((B.kid,), TYP, PAYLOAD)


def test_joserfc_reads_what_several_have_signed() -> None:
    def key(each: Any) -> OKPKey:
        return next(okp(one) for one in (A, B) if one.kid == each.headers()["kid"])

    value: GeneralJSONSerialization = json.loads(GENERAL)
    theirs = deserialize_general(value, key, registry=REGISTRY)
    assert theirs.payload == PAYLOAD


def test_we_read_what_joserfc_has_several_sign() -> None:
    def key(each: Any) -> OKPKey:
        return next(okp(one) for one in (A, C) if one.kid == each.headers()["kid"])

    made = serialize_general(
        [{"protected": header(A)}, {"protected": header(C)}], PAYLOAD, key, registry=REGISTRY
    )
    jws = Jws.parse(json.dumps(made).encode())
    assert (jws.signers(KEYS), decoded(jws.payload)) == ((A.kid, C.kid), PAYLOAD)


def test_the_example_of_rfc_8037_is_signed_and_verified_alike() -> None:
    """Appendix A.4 and A.5. Its header pins nothing, so that as an envelope it is refused."""
    private = Ed25519PrivateKey.from_private_bytes(decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    public = decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert encoded(private.sign(message)) == signature
    assert verifies(message, decoded(signature), public)
    with pytest.raises(BadJws, match="alg, kid and typ"):
        Jws.parse(message + b"." + signature.encode())


# RFC 8032, 7.1: private key, public key, message, signature of tests 1, 2, 3 and SHA(abc).
RFC_8032 = {
    "1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd2"
        "5bf5f0595bbe24655141438e7a100b",
    ),
    "2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c38"
        "7b2eaeb4302aeeb00d291612bb0c00",
    ),
    "3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a"
        "7c15e9716ed28dc027beceea1ec40a",
    ),
    "SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303d"
        "ca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.mark.parametrize("vector", RFC_8032.values(), ids=RFC_8032)
def test_the_vectors_of_rfc_8032_are_signed_and_verified_alike(vector: tuple[str, ...]) -> None:
    secret, public, message, signature = (bytes.fromhex(each) for each in vector)
    one = Signer(Ed25519PrivateKey.from_private_bytes(secret))
    assert (one.public, one.private.sign(message)) == (public, signature)
    assert verifies(message, signature, public)
    assert not verifies(message + b"!", signature, public)


def wycheproof() -> list[tuple[str, ...]]:
    lines = WYCHEPROOF.read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" ", 5)) for line in lines if not line.startswith("#")]


def test_every_wycheproof_vector_is_judged_as_it_should_be() -> None:
    vectors = wycheproof()
    judged = {
        number: verifies(*(bytes.fromhex(each.replace("-", "")) for each in (message, signature, public)))
        for number, _, public, message, signature, _ in vectors
    }
    assert judged == {number: result == "valid" for number, result, *_ in vectors}
    assert len(judged) == 151


# -- what is no JWS of ours -------------------------------------------------------------------------


def compact(head: Any, payload: bytes = PAYLOAD, by: Signer = A) -> bytes:
    """Signed in truth, whatever the header says."""
    protected = encoded(head if isinstance(head, bytes) else json.dumps(head).encode())
    message = f"{protected}.{encoded(payload)}"
    return f"{message}.{encoded(by.private.sign(message.encode()))}".encode()


def general(**changes: Any) -> bytes:
    return json.dumps({**json.loads(GENERAL), **changes}).encode()


PARTS = COMPACT.decode().split(".")
LINES = json.loads(GENERAL)["signatures"]
NOT_OURS = {
    "alg none": compact({**header(A), "alg": "none"}),
    "the older name of the algorithm": compact({**header(A), "alg": "EdDSA"}),
    "a symmetric algorithm": compact({**header(A), "alg": "HS256"}),
    "crit": compact({**header(A), "crit": ["exp"]}),
    "a key of its own": compact({**header(A), "jwk": {}}),
    "no typ": compact({"alg": "Ed25519", "kid": A.kid}),
    "a foreign typ": compact({**header(A), "typ": "JWT"}),
    "a kid of another shape": compact({**header(A), "kid": "../../etc"}),
    "a kid that is no string": compact({**header(A), "kid": 7}),
    "a header with a key twice": compact(
        b'{"alg":"none","alg":"Ed25519","kid":"' + A.kid.encode() + b'","typ":"postern-head+jws"}'
    ),
    "a header that is a list": compact([]),
    "a long header": compact({**header(A), "typ": "a" * 600 + "+jws"}),
    "padding": f"{PARTS[0]}=.{PARTS[1]}.{PARTS[2]}".encode(),
    "spare bits": f"{PARTS[0]}.{PARTS[1]}.{PARTS[2][:-1]}h".encode(),
    "the other alphabet": f"{PARTS[0]}.{PARTS[1]}.{'+' * 86}".encode(),
    "a line break": COMPACT + b"\n",
    "two parts": f"{PARTS[0]}.{PARTS[1]}".encode(),
    "five parts": COMPACT + b".a.b",
    "nothing": b"",
    "no ASCII": "é".encode(),
    "an unprotected header": general(header={"alg": "none"}),
    "flattened": json.dumps({"payload": PARTS[1], **LINES[0]}).encode(),
    "one signature in the general form": general(signatures=LINES[:1]),
    "no signature": general(signatures=[]),
    "one key twice": general(signatures=[LINES[0], LINES[0]]),
    "too many signatures": general(signatures=LINES * SIGNATURES),
    "a line with an unprotected header": general(signatures=[LINES[0], {**LINES[1], "header": {}}]),
    "a line that is no object": general(signatures=[LINES[0], 7]),
    "signatures that are no list": general(signatures={}),
    "a payload that is no string": general(payload=7),
    "a payload with spare bits": general(payload=PARTS[1][:-1] + "R"),
    "a protected header that is no string": general(signatures=[LINES[0], {**LINES[1], "protected": 7}]),
    "two types": general(
        signatures=[LINES[0], json.loads(sign(PAYLOAD, "postern-root+jws", [B, C]))["signatures"][0]]
    ),
    "a general form with a key twice": GENERAL.replace(b'{"payload"', b'{"payload":"","payload"'),
}


@pytest.mark.parametrize("raw", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_exactly_one_is_refused(raw: bytes) -> None:
    with pytest.raises(BadJws):
        Jws.parse(raw)


@pytest.mark.parametrize("raw", [COMPACT, GENERAL], ids=["compact", "general"])
def test_no_flipped_bit_passes(raw: bytes) -> None:
    for at in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[at // 8] ^= 1 << at % 8
        try:
            jws = Jws.parse(bytes(flipped))
            signers = jws.signers(KEYS)
        except BadJws:
            continue
        # The only thing that can change is whose a signature claims to be: then it is nobody's.
        assert len(signers) < len(jws.signatures)


@given(st.binary(max_size=300) | st.text(alphabet='eyJ{}".,:[]_-', max_size=300).map(str.encode))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        jws = Jws.parse(raw)
    except BadJws:
        return
    assert not jws.signers({})


# -- who signed -------------------------------------------------------------------------------------


def test_signers_are_named_in_the_order_they_signed() -> None:
    assert Jws.parse(sign(PAYLOAD, TYP, [C, A])).signers(KEYS) == (C.kid, A.kid)


def test_a_signature_of_a_stranger_counts_for_nothing() -> None:
    assert Jws.parse(GENERAL).signers({B.kid: B.public}) == (B.kid,)


def test_one_bad_signature_of_a_known_key_spoils_the_whole() -> None:
    other = json.loads(sign(b"{}", TYP, [A, B]))["signatures"][1]["signature"]
    raw = general(signatures=[LINES[0], {**LINES[1], "signature": other}])
    with pytest.raises(BadJws, match=f"bad signature of {B.kid}"):
        Jws.parse(raw).signers(KEYS)


def test_a_key_of_another_length_has_signed_nothing() -> None:
    with pytest.raises(BadJws, match="bad signature"):
        Jws.parse(COMPACT).signers({A.kid: A.public[:31]})


def test_a_cosigned_envelope_is_the_one_that_both_sign_at_once() -> None:
    assert cosign(COMPACT, B) == GENERAL
    assert cosign(cosign(COMPACT, B), A) == sign(PAYLOAD, TYP, [B, A]), "who signs again signs last"
    assert cosign(COMPACT, A) == COMPACT


def test_what_could_not_be_read_back_is_not_signed() -> None:
    with pytest.raises(BadJws):
        sign(PAYLOAD, "JWT", [A])


def test_a_kid_is_the_beginning_of_the_hash_of_the_key() -> None:
    assert kid_of(bytes(32)) == "66687aadf862bd77"


def test_base64url_has_one_text_for_each_value() -> None:
    for size in range(20):
        value = bytes(range(size))
        text = encoded(value)
        assert decoded(text) == value
        assert text == base64.urlsafe_b64encode(value).decode().rstrip("=")
