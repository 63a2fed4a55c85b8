"""Files are checked one by one, and folders as `penstock up` takes them."""

from __future__ import annotations

from pathlib import Path

from penstock_operator.cli.validation import examined

CONNECTION = """
apiVersion: penstock.io/v1alpha1
kind: TenantConnection
metadata: {name: people, namespace: team-a}
spec: {connector: {name: faker, method: generate}}
"""


def test_a_folder_is_all_yaml_files_below_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/good.yml").write_text(CONNECTION)
    (tmp_path / "wrong.yaml").write_text(CONNECTION.replace("people", "typo").replace("method", "metod"))
    files, found = examined([tmp_path])
    assert len(files) == 2
    assert found == [
        f"{tmp_path}/wrong.yaml: spec.connector.method: Required value",
        f'{tmp_path}/wrong.yaml: unknown field "spec.connector.metod"',
    ]


def test_a_name_that_is_there_twice_is_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(CONNECTION)
    _, found = examined([tmp_path])
    assert len(found) == 1
    assert "a name can be used once" in found[0]


def test_what_is_no_yaml_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    assert examined([tmp_path])[1] == [f"{tmp_path}: there is no YAML file below it"]
    binary = tmp_path / "manifest.yaml"
    binary.write_bytes(b"\xff\xfe")
    assert "not YAML" in examined([binary])[1][0]
