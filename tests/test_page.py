"""Pages: sealed as RFC 9180 says, opened by whom and for what they were sealed, closed in what they hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from agent import page
from agent.jws import encoded
from agent.row_seal import BadPage
from agent.templates import Template
from tests import hpke

VECTORS = Path(__file__).parent / "vectors"
SEAL = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = SEAL.public_key()
VAN = page.info("roster", "acme/van-0042", 7)
V = encoded(bytes(32))
PLAIN = b'{"rows":[]}'


def vectors(name: str) -> Iterator[list[str]]:
    for line in (VECTORS / name).read_text().splitlines():
        if not line.startswith("#"):
            yield ["" if word == "-" else word for word in line.split(" ")]


# -- the primitives -------------------------------------------------------------------------------


def agreed(public: str, private: str) -> str | None:
    own = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public))).hex()
    except ValueError:
        return None


def test_x25519_agrees_as_project_wycheproof_says() -> None:
    count = 0
    for number, _, public, private, shared, flags in vectors("wycheproof-x25519.txt"):
        # RFC 9180, 7.1.4: a shared secret of zeros must be refused, whatever else may be accepted.
        expected = None if "ZeroSharedSecret" in flags else shared
        assert agreed(public, private) == expected, number
        count += 1
    assert count == 518


# RFC 7748, 5.2 and 6.1: private key, public key of the other, what they agree on.
RFC_7748 = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
]


@pytest.mark.parametrize(("private", "public", "shared"), RFC_7748)
def test_x25519_agrees_as_rfc_7748_says(private: str, public: str, shared: str) -> None:
    assert agreed(public, private) == shared


def test_x25519_agrees_a_thousand_times_over_as_rfc_7748_says() -> None:
    """5.2: each result is the next private key, each private key the next public one."""
    private = public = "09" + "00" * 31
    for _ in range(1000):
        private, public = agreed(public, private) or "", private
    assert private == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_a_page_for_a_shared_secret_of_zeros_does_not_open() -> None:
    """Whoever sends such a key knows what comes of it, whoever the page is for, and could seal under that."""
    count = 0
    for _, _, public, _, _, flags in vectors("wycheproof-x25519.txt"):
        if "ZeroSharedSecret" in flags:
            enc = bytes.fromhex(public)
            key, nonce = hpke.schedule(hpke.shared(bytes(32), enc, PUBLIC.public_bytes_raw()), VAN)
            raw = enc + ChaCha20Poly1305(key).encrypt(nonce, PLAIN, b"")
            with pytest.raises(BadPage, match="sealed for this device"):
                page.unseal(raw, SEAL, VAN)
            count += 1
    assert count > 10


def opens(key: str, nonce: str, aad: str, sealed: str) -> str | None:
    try:
        cipher = ChaCha20Poly1305(bytes.fromhex(key))
        return cipher.decrypt(*map(bytes.fromhex, (nonce, sealed, aad))).hex()
    except (InvalidTag, ValueError):
        return None


def test_chacha20_poly1305_opens_as_project_wycheproof_says() -> None:
    count = 0
    for number, result, key, nonce, aad, plain, sealed, tag, _ in vectors("wycheproof-chacha20-poly1305.txt"):
        assert opens(key, nonce, aad, sealed + tag) == (plain if result == "valid" else None), number
        count += 1
    assert count == 325


# RFC 8439, appendix A.5. Its section 2.8.2 is number 1 of Project Wycheproof.
RFC_8439 = {
    "key": "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
    "nonce": "000000000102030405060708",
    "aad": "f33388860000000000004e91",
    "sealed": "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e38"
    "2d26b0bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f9"
    "82b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d"
    "46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04"
    "b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049"
    "e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709beead9d6789"
    "0cbb22392336fea1851f38",
}


def test_chacha20_poly1305_opens_as_rfc_8439_says() -> None:
    plain = bytes.fromhex(opens(**RFC_8439) or "")
    assert plain.startswith(b"Internet-Drafts are draft documents valid for a maximum of six months")
    assert len(plain) == 265
    assert opens(**{**RFC_8439, "aad": ""}) is None


# RFC 9180, appendix A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence 0.
RFC = {
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "skEm": "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600",
    "pkEm": "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
    "skRm": "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
    "pkRm": "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a",
    "shared_secret": "0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7",
    "key": "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91",
    "base_nonce": "5c4d98150661b848853b547f",
    "pt": "4265617574792069732074727574682c20747275746820626561757479",
    "aad": "436f756e742d30",
    "ct": "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
}


def test_the_other_implementation_is_that_of_the_rfc() -> None:
    given = {name: bytes.fromhex(value) for name, value in RFC.items()}
    sealed = hpke.seal(given["pt"], given["pkRm"], given["info"], given["aad"], given["skEm"])
    assert sealed == given["pkEm"] + given["ct"]
    assert hpke.unseal(sealed, given["skRm"], given["info"], given["aad"]) == given["pt"]
    key, nonce = hpke.schedule(given["shared_secret"], given["info"])
    assert (key, nonce) == (given["key"], given["base_nonce"])


# -- sealing --------------------------------------------------------------------------------------


def test_what_we_seal_another_implementation_opens() -> None:
    raw = page.seal(PLAIN, PUBLIC, VAN)
    assert hpke.unseal(raw, SEAL.private_bytes_raw(), VAN) == PLAIN
    assert len(raw) == len(PLAIN) + page.OVERHEAD


def test_what_another_implementation_seals_we_open() -> None:
    assert page.unseal(hpke.seal(PLAIN, PUBLIC.public_bytes_raw(), VAN), SEAL, VAN) == PLAIN


def test_the_purpose_of_a_page_is_written_as_agreed() -> None:
    assert VAN == b"postern/v1\0page\0roster\0acme/van-0042\x007"


@pytest.mark.parametrize(
    "purpose",
    [
        page.info("grants", "acme/van-0042", 7),
        page.info("roster", "acme/van-0043", 7),
        page.info("roster", "acme/van-0042", 8),
        b"",
    ],
    ids=["another bundle", "another device", "another version", "no purpose"],
)
def test_a_page_passes_for_no_other(purpose: bytes) -> None:
    with pytest.raises(BadPage, match="sealed for this device and purpose"):
        page.unseal(page.seal(PLAIN, PUBLIC, VAN), SEAL, purpose)


def test_a_page_of_another_device_does_not_open() -> None:
    raw = page.seal(PLAIN, X25519PrivateKey.generate().public_key(), VAN)
    with pytest.raises(BadPage, match="sealed for this device"):
        page.unseal(raw, SEAL, VAN)


@pytest.mark.parametrize("at", [0, 31, 32, -17, -1])
def test_no_bit_of_a_page_may_change(at: int) -> None:
    raw = bytearray(page.seal(PLAIN, PUBLIC, VAN))
    raw[at] ^= 1
    with pytest.raises(BadPage, match="sealed for this device"):
        page.unseal(bytes(raw), SEAL, VAN)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(32), bytes(48), bytes(1000)])
def test_noise_does_not_open(raw: bytes) -> None:
    """A key of zeros among it, which no shared secret may come of."""
    with pytest.raises(BadPage, match="sealed for this device"):
        page.unseal(raw, SEAL, VAN)


# -- what may stand in it -------------------------------------------------------------------------

BADGE = {"v": V, "kind": "badge", "body": {"subject": "drv-1", "finger": ["finger", 7], "until": 1}}
CARD = {"v": V, "kind": "fido2", "body": {"subject": "drv-1", "public_key": "A" * 43, "role": "supervisor"}}
GRANT = {
    "v": V,
    "kind": "grant",
    "body": {"jti": "g1", "locker": "l-1", "compartment": "17", "parcel": "sscc:1", "nbf": 1, "exp": 2},
}
PARCEL = {"v": V, "kind": "parcel", "body": {"driver": "drv-1", "stop": "s-1", "flags": ["fragile"]}}


TEMPLATE = {
    "v": V,
    "kind": "template",
    "body": {"subject": "drv-1", "unit": "finger", "slot": 7, "until": 1, "template": "A" * 2048},
}


def test_templates_stand_apart_from_what_opens_by_presentation() -> None:
    content = page.read_rows("roster", page.write({"rows": [BADGE, TEMPLATE]}))
    assert content.rows == [(bytes(32), BADGE["body"])]
    assert content.templates == [
        Template(value=bytes(32), subject="drv-1", unit="finger", slot=7, until=1, content=bytes(1536))
    ]
    assert len(content) == 2
    assert repr(bytes(8)) not in repr(content.templates)


@pytest.mark.parametrize(
    "wrong",
    [
        {"template": "A" * 341},
        {"template": "A" * 2732},
        {"template": "A" * 341 + "+"},
        {"template": "A" * 341 + "B"},
        {"slot": 65_536},
        {"unit": "Finger"},
        {"role": "driver"},
    ],
)
def test_a_template_of_another_shape_is_refused_and_not_shown(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadPage) as bad:
        page.read_rows("roster", altered(TEMPLATE, **wrong))
    assert "AAAA" not in str(bad.value)


@pytest.mark.parametrize(
    ("bundle", "row"),
    [("roster", BADGE), ("roster", CARD), ("grants", GRANT), ("manifest", PARCEL)],
)
def test_each_bundle_holds_rows_of_its_own(bundle: str, row: dict[str, Any]) -> None:
    assert page.read_rows(bundle, page.write({"rows": [row]})).rows == [(bytes(32), row["body"])]
    for other in {"roster", "grants", "manifest"} - {bundle}:
        with pytest.raises(BadPage, match=r"^rows\.0\."):
            page.read_rows(other, page.write({"rows": [row]}))


def altered(row: dict[str, Any], **body: Any) -> bytes:
    return page.write({"rows": [{**row, "body": {**row["body"], **body}}]})


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (b"", "expected JSON"),
        (b"[]", "should be an object"),
        (b'{"rows":[],"rows":[]}', "expected each key once"),
        (b'{"rows":[],"more":1}', "more"),
        (b"\xff", "expected UTF-8"),
        (b'{"rows":' + b"[" * 50 + b"]" * 50 + b"}", "at most 8 levels"),
        (page.write({"rows": [{**BADGE, "v": V + "A"}]}), r"rows\.0\.badge\.v"),
        (page.write({"rows": [{**BADGE, "v": V[:-1] + "B"}]}), r"rows\.0\.badge\.v"),
        (page.write({"rows": [{**BADGE, "kind": "slot"}]}), r"rows\.0\.kind: expected one of"),
        (altered(BADGE, subject=""), "subject"),
        (altered(BADGE, finger=["finger"]), "finger"),
        (altered(BADGE, until="soon"), "until"),
        (altered(BADGE, until=True), "until"),
        (altered(BADGE, role="owner"), "role"),
        (altered(BADGE, public_key="A" * 43), "public key for fido2"),
        (altered(BADGE, name="Anna"), "name"),
        (page.write({"rows": [{**BADGE, "kind": "fido2"}]}), "public key for fido2"),
    ],
)
def test_a_page_of_another_shape_is_refused_with_the_place(plain: bytes, said: str) -> None:
    with pytest.raises(BadPage, match=said):
        page.read_rows("roster", plain)


def test_what_is_refused_is_not_told() -> None:
    """A mistake names its place, never the subject or the secret that stands there."""
    with pytest.raises(BadPage) as bad:
        page.read_rows("roster", altered(BADGE, subject="drv-anna" * 20))
    assert "drv-anna" not in str(bad.value)


def test_a_key_page_holds_one_epoch_key() -> None:
    brought = page.read_key(page.write({"epoch_key": encoded(bytes(range(32))), "epoch_id": 3}))
    assert (brought.id, brought.key) == (3, bytes(range(32)))
    assert "00" not in repr(brought)
    for wrong in ('{"epoch_key":"AAAA","epoch_id":3}', f'{{"epoch_key":"{V}","epoch_id":0}}', '{"rows":[]}'):
        with pytest.raises(BadPage):
            page.read_key(wrong.encode())
