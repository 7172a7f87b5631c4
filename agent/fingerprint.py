"""What two people compare to know that they mean the same key: read out, or shown as a code to scan.

>>> groups("00aabbccddeeff11")
'00aa bbcc ddee ff11'
"""

from hashlib import sha256


def groups(text: str) -> str:
    """Hex in groups of four, as it is read out. Spaces, colons, dashes and case mean nothing."""
    digits = "".join(char for char in text.lower() if char not in " :-\t\r\n")
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def of_device(sign_key: bytes, seal_key: bytes) -> str:
    """Of a device: over both of its public keys, so that neither can be exchanged unseen."""
    return groups(sha256(sign_key + seal_key).hexdigest())


def of_root(envelope: bytes) -> str:
    """Of a root: over the whole envelope as it is published."""
    return groups(sha256(envelope).hexdigest())
