"""The parent of a connector's process: whatever writes a secret, nobody reads it, and the outcome stays as it is."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote, quote_plus

import pytest
from penstock_sdk._runtime.secret_forms import OutputMask, SecretForms

from tests.patience import PATIENCE

SECRET = 'pa55/w+rd &=%"ö'
RUN = """
import os, sys
sys.path[:0] = []
from penstock_sdk._runtime.masking_parent import run_as_child
secret = os.environ.pop("SECRET")
def run(tell):
{body}
    return 0
sys.exit(run_as_child({{"password": secret}}, run))
"""


def program(body: str) -> list[str]:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return [sys.executable, "-c", RUN.format(body=lines)]


def output(body: str, secret: str = SECRET, code: int = 0) -> str:
    """Return what the program writes to both descriptors."""
    environment = {**os.environ, "SECRET": secret}
    done = subprocess.run(
        program(body), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
    )
    assert done.returncode == code, done.stdout
    return done.stdout.decode()


@contextmanager
def running(body: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start the program; its first line says that it is ready."""
    environment = {**os.environ, "SECRET": SECRET}
    process = subprocess.Popen(program(body), env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    "body",
    [
        "print('is', secret, flush=True)",
        "os.write(1, f'is {secret}\\n'.encode())",
        "os.write(2, f'is {secret}\\n'.encode())",
        "import subprocess; subprocess.run([sys.executable, '-c', 'import sys; print(\"is\", sys.argv[1])', secret])",
        "import ctypes; ctypes.CDLL(None).dprintf(1, b'is %s\\n', secret.encode())",
        "for piece in ('is ' + secret + '\\n'): os.write(1, piece.encode())",
    ],
    ids=["print", "stdout", "stderr", "subprocess", "C", "byte by byte"],
)
def test_whatever_writes_it_a_secret_is_masked(body: str) -> None:
    assert output(body) == "is ***\n"


def test_a_traceback_is_masked() -> None:
    text = output("raise ValueError(f'wrong {secret}')", code=1)
    assert "Traceback" in text
    assert "ValueError: wrong ***" in text
    assert "pa55" not in text


FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "quote": quote,
    "quote everything": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "percent in lower case": lambda text: quote(text, safe="").replace("%2F", "%2f"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "Basic": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 after one byte": lambda text: base64.b64encode(f"u{text}after".encode()).decode(),
    "base64 after two bytes": lambda text: base64.b64encode(f"uv{text}after".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "JSON": json.dumps,
    "JSON of UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON of JSON": lambda text: json.dumps(json.dumps(text)),
    "repr": repr,
}


def shown(text: str, pieces: Callable[[bytes], list[bytes]] = lambda data: [data]) -> str:
    mask = OutputMask(SecretForms([SECRET]))
    return (b"".join(mask.feed(piece) for piece in pieces(text.encode())) + mask.close()).decode()


def seen(secret: str, text: str) -> bool:
    """Return True if a form of the secret can be read in the text, also with line breaks in it."""
    joined = text.replace("\n", "")
    core = [
        form(secret).strip("\"'\\") for name, form in FORMS.items() if not name.startswith(("Basic", "base64 after"))
    ]
    encoded = secret.encode()
    core += [base64.b64encode(b"\0" * offset + encoded).decode()[4:-4] for offset in range(3)]
    return any(form in joined for form in core)


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_masked(name: str) -> None:
    text = shown(f"before {FORMS[name](SECRET)} after\n")
    assert "***" in text
    assert text.startswith("before ")
    assert text.endswith(" after\n")
    assert not seen(SECRET, text)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_split_over_lines_and_writes_is_masked(name: str) -> None:
    form = FORMS[name](SECRET)
    for place in range(1, len(form)):
        text = f"before\n{form[:place]}\n{form[place:]}\nafter\n"
        for pieces in (lambda data: [data], lambda data: [data[i : i + 1] for i in range(len(data))]):
            assert not seen(SECRET, shown(text, pieces)), (place, shown(text, pieces))
            assert shown(text, pieces).startswith("before\n")
            assert shown(text, pieces).endswith("after\n")


def test_lines_of_a_key_are_masked_each_for_itself_and_together() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
    forms = SecretForms([key])
    assert forms.mask(b"the line hkiG9w0BAQEFAASC is odd") == b"the line *** is odd"
    assert forms.mask(json.dumps(key).encode()) == b'"***\\n"' or b"MII" not in forms.mask(json.dumps(key).encode())


def test_canaries_in_random_forms_and_pieces_are_not_seen() -> None:
    generator = random.Random(20261128)
    alphabet = string.ascii_letters + string.digits + "/+=&%\"'\\ _-.ö"
    for _ in range(500):
        secret = "".join(generator.choices(alphabet, k=generator.randint(9, 40))).strip().ljust(9, "x")
        mask = OutputMask(SecretForms([secret]))
        form = FORMS[generator.choice(list(FORMS))](secret)
        data = f"log {generator.random()}: {form}: end\n".encode()
        written = b""
        while data:
            size = generator.randint(1, len(data))
            written += mask.feed(data[:size])
            data = data[size:]
        text = (written + mask.close()).decode()
        assert not seen(secret, text), (secret, form, text)


def test_what_is_no_secret_passes_unchanged() -> None:
    generator = random.Random(1)
    data = b"".join(generator.randbytes(generator.randint(0, 200)) + b"\n" for _ in range(500))
    mask = OutputMask(SecretForms(["a-secret-that-is-not-there"]))
    assert b"".join(mask.feed(data[i : i + 777]) for i in range(0, len(data), 777)) + mask.close() == data


def test_a_value_that_is_no_secret_by_the_manifest_is_shown_and_a_new_secret_is_masked() -> None:
    body = """
tell([])
print(secret, flush=True)
tell(["another-secret"])
os.write(1, b"another-secret\\n")
"""
    assert output(body, "user-name") == "user-name\n***\n"


def test_secrets_longer_than_a_pipe_are_told_before_anything_is_written() -> None:
    body = """
tell(["x" * 200_000, "another-secret"])
os.write(1, b"another-secret\\n")
"""
    assert output(body) == "***\n"


def test_secrets_longer_than_a_pipe_do_not_hold_a_child_that_has_closed_its_output() -> None:
    assert not output("os.close(1)\nos.close(2)\ntell(['x' * 200_000])")


@pytest.mark.parametrize("code", [0, 1, 10, 20, 137])
def test_the_exit_code_is_that_of_the_child(code: int) -> None:
    output(f"sys.exit({code})", code=code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_that_ends_the_child_ends_the_parent(number: signal.Signals) -> None:
    output(f"os.kill(os.getpid(), {int(number)})", code=-number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_child(number: signal.Signals) -> None:
    body = f"""
import signal
signal.signal({int(number)}, lambda *_: (print("told", flush=True), os._exit(7)))
print("ready", flush=True)
while True: signal.pause()
"""
    with running(body) as (process, stdout):
        assert stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert stdout.readline() == b"told\n"
        assert process.wait(PATIENCE) == 7


def test_the_child_ends_with_the_parent() -> None:
    with running("print(os.getpid(), flush=True)\nimport signal\nwhile True: signal.pause()") as (process, stdout):
        child = int(stdout.readline())
        descriptor = os.pidfd_open(child)
        process.kill()
        os.set_blocking(descriptor, True)
        import select

        assert select.select([descriptor], [], [], PATIENCE)[0], "the child has ended"
        os.close(descriptor)


def test_a_process_that_the_child_leaves_behind_does_not_hold_the_parent() -> None:
    body = """
if os.fork() == 0:
    import signal
    print(os.getpid(), flush=True)
    signal.pause()
"""
    left = int(output(body))
    os.kill(left, signal.SIGKILL)


def test_the_parent_stays_small() -> None:
    body = """
lines = open(f"/proc/{os.getppid()}/smaps_rollup").read().splitlines()
import penstock_sdk._runtime.main
lines = open(f"/proc/{os.getppid()}/smaps_rollup").read().splitlines()
print(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")), flush=True)
"""
    assert int(output(body)) < 12_000, "KiB that the parent does not share"


def test_no_environment_of_a_process_shows_a_credential(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "password").write_text("from-a-file")
    code = (
        "import os\nfrom penstock_sdk._runtime.credential_files import take_credentials\n"
        "print(take_credentials(os.environ), b'from-a-file' in open('/proc/self/environ', 'rb').read())"
    )
    environment = {**os.environ, "PENSTOCK_CREDENTIALS_DIRECTORY": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "{'password': 'from-a-file'} False\n"
