"""Secrets are compared and never stored."""

from __future__ import annotations

import json
import pickle

import pytest

from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.run.fingerprint import Fingerprint, compare, mismatch_error
from ckptfmt.run.fingerprint_secrets import Secrecy, looks_secret, secrecy_of_name

RANDOM = "0123456789abcdefABCDEF01"


def fingerprint(config):
    return Fingerprint(config=config, environment=False, code=False)


@pytest.mark.parametrize(
    "name",
    "password db_password passwd PASSWD pwd secret client_secret SECRET_KEY apiKey api_key API-KEY openai.apikey wandb_api_key credential "
    "credentials privateKey private_key access_key aws_access_key_id passphrase authorization connection_string dsn".split(),
)
def test_these_names_are_secret_whatever_they_hold(name):
    assert secrecy_of_name(name) is Secrecy.ANY


@pytest.mark.parametrize("name", "token hf_token hfToken HFTOKEN HF_TOKEN authtoken auth_tokens token_github access_token".split())
def test_these_names_are_secret_if_they_hold_text(name):
    assert secrecy_of_name(name) is Secrecy.TEXT


@pytest.mark.parametrize(
    "name",
    "lr key keys tokenizer tokenizer_name pad_token eos_token num_tokens max_tokens special_tokens seed author passes compass "
    "monkey keyboard path primary_key".split(),
)
def test_these_names_are_no_secrets(name):
    assert secrecy_of_name(name) is Secrecy.NONE


@pytest.mark.parametrize(
    "text",
    [
        f"sk-{RANDOM}",
        f"sk-proj-{RANDOM}",
        f"sk_live_{RANDOM}",
        f"ghp_{RANDOM}",
        f"github_pat_{RANDOM}",
        f"glpat-{RANDOM}",
        f"hf_{RANDOM}",
        "AKIA0123456789ABCDEF",
        f"AIza{RANDOM}{RANDOM}",
        f"xoxb-{RANDOM}",
        f"npm_{RANDOM}",
        f"pypi-{RANDOM}",
        f"eyJ{RANDOM}.eyJ{RANDOM}.x",
        "-----BEGIN RSA PRIVATE KEY-----",
        "postgresql://me:hunter2@db.example.org/optuna",
        f"https://{RANDOM}@example.org/repository.git",
        "https://example.org/?sig=abcdef&x=1",
        f"Authorization: Bearer {RANDOM}",
        "run --api-key=abcdef",
        "host=db password=hunter2",
        f"please use hf_{RANDOM} for it",
    ],
)
def test_these_texts_look_like_secrets(text):
    assert looks_secret(text)
    assert fingerprint({"x": text}).fields["config.x"].type == "secret"
    assert fingerprint({"x": ["a", text]}).fields["config.x"].type == "secret"
    assert fingerprint({"x": text.encode()}).fields["config.x"].type == "secret"
    with pytest.raises(UnsupportedTypeError, match="looks like a secret") as caught:
        fingerprint({"x": {text: 1}})
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "adam",
        "sk-learn-random-forest-classifier",
        "hf_internal_testing_tiny_random_model",
        "https://example.org/path?x=1",
        "sqlite:///study.db",
        "git@github.com:owner/repository.git",
        "9f2c41d07ab39f2c41d07ab39f2c41d07ab39f2c",
        "The token of the first sentence is basic.",
    ],
)
def test_these_texts_do_not_look_like_secrets(text):
    assert not looks_secret(text)


def test_a_secret_is_in_no_form_of_a_fingerprint():
    config = {
        "api_key": "correct-horse",
        "password": 31337421,
        "hf_token": ["battery-staple"],
        "login": {"credentials": {"user": "somebody-else", "nested": [{"x": "deep-secret"}]}},
        "storage": "mysql://root:hunter22@localhost/db",
    }
    made = fingerprint(config)
    texts = [
        json.dumps(made.to_document()),
        repr(made),
        str(made.fields),
        pickle.dumps(made).decode("latin-1"),
        str(mismatch_error(made, compare(made, fingerprint({})))),
        str(compare(fingerprint({}), made)),
    ]
    for secret in ("correct-horse", "31337421", "battery-staple", "somebody-else", "deep-secret", "hunter22"):
        assert not any(secret in text for text in texts)


def test_none_booleans_and_numbers_under_soft_names_stay_readable():
    made = fingerprint({"password": None, "use_password": True, "token": 512, "tokens": {"limit": 3}})
    assert {field.type for field in made.fields.values()} == {"none", "bool", "int"}
    assert "salt" not in made.to_document()


def test_secrets_are_compared_across_documents_of_different_salts():
    stored, same, other = (fingerprint({"api_key": key, "a": 1}) for key in ("one", "one", "two"))
    assert stored.to_document() != same.to_document()
    assert compare(stored.to_document(), same) == ()
    assert stored == same
    assert stored.digest == same.digest
    (difference,) = compare(stored.to_document(), other)
    assert (difference.expected, difference.found, difference.severity) == ("<secret>", "<secret changed>", "error")
    assert "config.api_key <secret changed>\n" in str(mismatch_error(stored, [difference]))
    assert stored.digest != other.digest


def test_the_type_of_a_secret_counts():
    assert compare(fingerprint({"password": "1"}).to_document(), fingerprint({"password": 1}))


def test_a_secret_that_came_or_went_is_not_shown():
    with_one, without = fingerprint({"api_key": "one"}), fingerprint({"a": 1})
    assert [(d.expected, d.found) for d in compare(with_one, without)] == [(None, 1), ("<secret>", None)]
    assert [(d.expected, d.found) for d in compare(without, with_one)] == [(1, None), (None, "<secret>")]


def test_a_value_that_only_one_side_took_for_a_secret_is_compared_and_not_shown():
    secret, plain = fingerprint({"api_key": "one"}), fingerprint({"xxx_xxx": "one"}).to_document()
    renamed = json.loads(json.dumps(secret.to_document()).replace("api_key", "xxx_xxx"))
    current = fingerprint({"xxx_xxx": "one"})
    assert compare(renamed, current) == ()
    (difference,) = compare(renamed, fingerprint({"xxx_xxx": "two"}))
    assert difference.found == "<secret changed>"
    assert compare(plain, Fingerprint.from_document(renamed)) == ()


def test_stored_secrets_of_different_salts_cannot_be_compared_and_that_is_said():
    first, second = (Fingerprint.from_document(fingerprint({"api_key": "one"}).to_document()) for _ in range(2))
    (difference,) = compare(first, second)
    assert (difference.found, difference.severity) == ("<secret not comparable>", "info")
    assert compare(first, first) == ()
    assert first == first
