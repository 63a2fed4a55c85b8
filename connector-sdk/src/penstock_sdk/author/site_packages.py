"""The packages of an image: the connector and exactly the packages with which it was tested, file by file.

Nothing is resolved or downloaded: the tested environment is copied. Files that record when or where a package was
installed are left out, so that the same environment gives the same files.
"""

from __future__ import annotations

import compileall
import json
import py_compile
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from penstock_sdk.author.project import ProjectError
from penstock_sdk.testing.dependencies import installed_dependencies, pinned

PLACE = "/opt/penstock"
OF_THE_INSTALLATION = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def fill(site: Path, distribution: str) -> list[str]:
    """Copy a distribution and all that it requires to a folder. Return the packages as `name==version`."""
    wanted = required(distribution)
    for package in wanted:
        source = _source(package)
        _install(source, site) if source else _copy(package, site)
    _strip(site)
    return [pinned(package.name, package.version) for package in wanted]


def required(distribution: str) -> list[metadata.Distribution]:
    """Return a distribution and all that it requires, sorted by name."""
    try:
        return sorted(installed_dependencies(distribution), key=lambda package: canonicalize_name(package.name))
    except metadata.PackageNotFoundError as error:
        raise ProjectError(f"{error.name} is required and not installed: pip install {error.name}") from None


def _source(distribution: metadata.Distribution) -> Path | None:
    """Return the source folder of a distribution that is installed as editable, or None."""
    text = distribution.read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(origin["url"]).path))


def _install(source: Path, site: Path) -> None:
    backend = tomllib.loads((source / "pyproject.toml").read_text()).get("build-system", {}).get("build-backend", "")
    here = ["--no-build-isolation"] if backend and find_spec(backend.split(".")[0]) else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        *here,
        "--target",
        str(site),
        str(source),
    ]
    done = subprocess.run([*command, "--upgrade"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProjectError(f"{source} cannot be built: {done.stderr.strip()[-1000:]}")


def _copy(distribution: metadata.Distribution, site: Path) -> None:
    for file in distribution.files or []:
        if ".." in file.parts or file.suffix == ".pyc":
            continue  # a script, or a compiled file
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(distribution.locate_file(file)), target)


def _strip(site: Path) -> None:
    shutil.rmtree(site / "bin", ignore_errors=True)
    for folder in list(site.rglob("__pycache__")):
        shutil.rmtree(folder)
    for name in OF_THE_INSTALLATION:
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()
    # Unchecked, because the image is read-only; without compiled files a pod would lose a second when it starts.
    compileall.compile_dir(
        site,
        quiet=2,
        stripdir=str(site),
        prependdir=PLACE,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    for path in site.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
