"""What looks like a secret: the name of a setting, or the shape of its value. Spec fingerprint-1, 5.

The lists are generous. A setting that is taken for a secret by mistake is still compared; only its value is not shown. A secret
that is missed would be published with the checkpoint.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache


class Secrecy(IntEnum):
    """How much a name says that what is under it is secret."""

    NONE = 0
    TEXT = 1
    """Only if it is text: a `token` is one, `max_tokens=512` and `token_dropout=0.1` are not."""
    ANY = 2
    """Whatever it is, except None and booleans."""


_SECRET_NAMES = re.compile(
    "password|passwd|passphrase|passcode|secret|credential|apikey|privatekey|accesskey|authkey|accountkey|signingkey|sshkey"
    "|encryptionkey|subscriptionkey|licensekey|connectionstring|bearer|authorization|webhook|cookie"
)
_SECRET_WORDS = frozenset({"pwd", "pw", "dsn", "jwt", "otp"})
# Tokens of a vocabulary.
_NO_SECRET_BEFORE_TOKEN = frozenset(
    "audio begin bos cls decoder decoding each end eos extra fake first forced image last mask max min model no non num pad per "
    "prefix prompt query sep special start stop suffix text unk unknown video word".split()
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]")

_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\bsk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}|\b[spr]k_(?:live|test)_[A-Za-z0-9]{8,}"
    r"|\bgh[opusr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bgl[a-z]{2,5}-[A-Za-z0-9_-]{16,}"
    r"|\b(?:hf|api_org|npm|gsk|r8|fw|lsv2_[a-z]{2}|dckr_pat|dop_v1)_[A-Za-z0-9]{20,}|\b(?:nvapi|pplx|tvly|xai|pypi)-[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA|AROA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{20,}"
    r"|\bxox[a-z]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}"
    r"|://[^/\s:@]*:[^/\s@]+@|://[^/\s:@]{16,}@"
    r"|\b[Bb]earer\s+[A-Za-z0-9._~+/-]{8,}|\bAuthorization:\s*\S"
    r"|(?i:(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|account[_-]?key|(?:auth|access)[_-]?token|--token|[?&]token|[?&]sig"
    r"|signature)\s*=\s*[^\s&]{3,})"
)


@lru_cache(maxsize=4096)
def secrecy_of_name(name: str) -> Secrecy:
    """Tell what the name of one setting, a single segment of its path, says about its value."""
    if _SECRET_NAMES.search(_NOT_ALPHANUMERIC.sub("", name.lower())):
        return Secrecy.ANY
    words = [word.lower() for word in _WORDS.findall(name)]
    if not _SECRET_WORDS.isdisjoint(words):
        return Secrecy.ANY
    before = ""
    for word in words:
        if word.endswith(("token", "tokens")) and before not in _NO_SECRET_BEFORE_TOKEN:
            return Secrecy.TEXT
        before = word
    return Secrecy.NONE


def looks_secret(text: str) -> bool:
    """Tell whether a text has, anywhere in it, the shape of a token, a key or an address with a password."""
    return len(text) >= 8 and _SHAPES.search(text) is not None
