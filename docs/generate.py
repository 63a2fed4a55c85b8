"""The reference, written from the code: `python docs/generate.py FOLDER` writes a page a subject.

Nothing is said here: every sentence is a docstring, a field's description, an option's help or a table of the code.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import penstock_sdk
import typer
from penstock_operator.api.app import create_app
from penstock_operator.api.services import Services
from penstock_operator.cli.main import app as operator_app
from penstock_operator.limits import DOCUMENT_LIMITS, SERVER_LIMITS, Limit
from penstock_operator.resources.conditions import MEANINGS
from penstock_operator.resources.crds import schema_of
from penstock_operator.settings import VARIABLES
from penstock_sdk import contract, errors, http, incremental, pii, protocol, pytest_plugin
from penstock_sdk.author.commands import app as author_app
from penstock_sdk.http import async_job, paged_request
from penstock_sdk.manifest import manifest_schema
from penstock_sdk.manifest import model as manifest_model
from penstock_sdk.testing import CHECKS, Target, source
from penstock_sdk.testing import report as report_module
from typer.cli import get_docs_for_click

HEADER = "<!-- Written from the code by `make reference`; edit the docstrings. -->\n\n"
Row = tuple[str, ...]
WIDE = 100


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a table; what would end a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def one_line(text: str | None) -> str:
    """Return a text as one line."""
    return " ".join((text or "").split())


def code(text: str) -> str:
    """Return a text as code, empty for nothing."""
    return f"`{text}`" if text else ""


# -- Python ---------------------------------------------------------------------------------------


class Words:
    """An annotation as it was written: `inspect` would put it in quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(name: str, thing: Any) -> str:
    """Return how a thing is called, as Python; a long one has a line a parameter."""
    found = inspect.signature(thing)
    written = vars(thing).get("__annotations__", {}) if inspect.isclass(thing) else {}
    parameters = [_as_written(each, written) for each in found.parameters.values() if each.name not in ("self", "cls")]
    answer = found.return_annotation
    text = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)).replace(
        "<factory>", "{}"
    )
    if len(name) + len(text) > WIDE:
        text = "(\n    " + ",\n    ".join(_parameters(parameters)).replace("<factory>", "{}") + ",\n)"
    arrow = f" -> {answer}" if isinstance(answer, str) and not inspect.isclass(thing) else ""
    return f"```python\n{name}{text}{arrow}\n```\n"


def _as_written(parameter: inspect.Parameter, written: Mapping[str, Any]) -> inspect.Parameter:
    """Return a parameter with its annotation as in the source, and a function that is its default by name."""
    text, default = written.get(parameter.name, parameter.annotation), parameter.default
    return parameter.replace(
        annotation=Words(text) if isinstance(text, str) else text,
        default=Words(default.__name__) if inspect.isfunction(default) else default,
    )


def _parameters(parameters: list[inspect.Parameter]) -> list[str]:
    starred = any(each.kind is each.KEYWORD_ONLY for each in parameters)
    return [*(["*"] if starred and parameters[0].kind is inspect.Parameter.KEYWORD_ONLY else []), *map(str, parameters)]


def members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines itself, as they stand in it."""
    for name, value in vars(cls).items():
        plain = getattr(value, "__func__", value)
        if not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield name, plain


def class_page(name: str, cls: type[Any], *, methods: bool = True) -> str:
    """Return a class: how it is made, what it is, what it can do."""
    made = [] if getattr(cls, "_is_protocol", False) else [signature(name, cls)]
    parts = [f"## {name}\n", *made, f"{inspect.getdoc(cls)}\n"]
    for member, function in members(cls) if methods else ():
        if isinstance(function, property):
            parts.append(f"### {name}.{member}\n\n{inspect.getdoc(function)}\n")
        else:
            parts.append(f"### {name}.{member}\n\n{signature(member, function)}\n{inspect.getdoc(function)}\n")
    return "\n".join(parts)


def aliases(module: ModuleType) -> dict[str, tuple[str, str]]:
    """Return a module's type aliases: what each stands for, and the docstring below it."""
    found: dict[str, tuple[str, str]] = {}
    body = ast.parse(inspect.getsource(module)).body
    for each, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            said = following.value.value if isinstance(following, ast.Expr) and _is_text(following.value) else ""  # type: ignore[attr-defined]
            found[each.targets[0].id] = ast.unparse(each.value), inspect.cleandoc(said)
    return found


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def contract_page() -> str:
    """Return what an author writes and may use."""
    known = aliases(contract)
    names = [name for name in contract.__dict__ if name in penstock_sdk.__all__]
    classes = {
        name: getattr(contract, name)
        for name in names
        if name not in known and inspect.isclass(getattr(contract, name))
    }
    ordered = ["Connector", *(name for name in classes if name != "Connector")]
    rows = [(code(name), code(known[name][0]), one_line(known[name][1])) for name in names if name in known]
    pages = [class_page(name, classes[name]) for name in ordered]
    more = f"## penstock_sdk.pii.suggest_fields\n\n{signature('suggest_fields', pii.suggest_fields)}\n{inspect.getdoc(pii.suggest_fields)}\n"
    types = f"## Types\n\n{table(('name', 'is', 'means'), rows)}"
    return "\n".join([f"# The contract\n\n{inspect.getdoc(contract)}\n", *pages, types, more])


def incremental_page() -> str:
    """Return the helpers against the classic losses."""
    parts = [f"# Incremental reads without losses\n\n{inspect.getdoc(incremental)}\n"]
    for name in incremental.__all__:
        thing = getattr(incremental, name)
        made = f"## {name}\n\n{signature(name, thing)}\n{inspect.getdoc(thing)}\n"
        parts.append(class_page(name, thing) if inspect.isclass(thing) else made)
    return "\n".join(parts)


def http_page() -> str:
    """Return the toolkit for HTTP sources, and the fake source."""
    known = aliases(paged_request) | aliases(async_job)
    parts = [f"# HTTP sources\n\n{inspect.getdoc(http)}\n"]
    for name in http.__all__:
        thing = getattr(http, name)
        if name in known:
            parts.append(f"## {name}\n\n{code(known[name][0])}\n\n{one_line(known[name][1])}\n")
        elif inspect.isclass(thing):
            parts.append(class_page(name, thing))
        elif inspect.isfunction(thing):
            parts.append(f"## {name}\n\n{signature(name, thing)}\n{inspect.getdoc(thing)}\n")
    parts.append(f"# The fake source\n\n{inspect.getdoc(source)}\n")
    parts += [
        class_page(name, getattr(source, name)) for name in source.__all__ if inspect.isclass(getattr(source, name))
    ]
    return "\n".join(parts)


def errors_page() -> str:
    """Return the errors with their reactions."""
    kinds = [getattr(errors, name) for name in errors.ERROR_CLASS_BY_EXIT_CODE.values()]
    ended = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, errors.AttemptEnded)]
    leaves = [each for each in [*kinds, *ended] if not each.__subclasses__()]
    rows = [(code(each.__name__), str(each.exit_code), one_line(_first(each))) for each in leaves]
    made = [class_page(each.__name__, each, methods=False) for each in (errors.ConnectorError, *kinds)]
    head = f"# Errors and exit codes\n\n{inspect.getdoc(errors)}\n"
    return "\n".join([head, table(("class", "exit code", "means"), rows), *made])


def _first(cls: type[Any]) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0]


def testing_page() -> str:
    """Return the conformance suite: plugin, subject, checks, report."""
    fields = [(code(each.name), code(str(each.type))) for each in dataclasses.fields(Target)]
    checks = [(code(each.name), each.proves, each.remedy) for each in CHECKS]
    return "\n".join(
        [
            f"# The conformance suite in Python\n\n{inspect.getdoc(pytest_plugin)}\n",
            f"## Target\n\n{inspect.getdoc(Target)}\n",
            table(("field", "type"), fields),
            f"## Checks\n\n{table(('check', 'proves', 'when it fails'), checks)}",
            f"## The digest of a package\n\n{inspect.getdoc(report_module.tree_digest)}\n",
        ]
    )


# -- Schemas --------------------------------------------------------------------------------------


def type_of(schema: Mapping[str, Any]) -> str:
    """Return a schema's type in words."""
    if "enum" in schema:
        return " \\| ".join(code(str(each)) for each in schema["enum"]).replace("\\|", "or")
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1]
    if "anyOf" in schema:
        return " or ".join(type_of(each) for each in schema["anyOf"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{type_of(schema['additionalProperties'])} by name"
    return str(kind) + (f" ({schema['format']})" if "format" in schema else "")


def limits_of(schema: Mapping[str, Any]) -> str:
    """Return what a value must be beside its type."""
    words = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "maxLength": "at most {} characters",
        "maxItems": "at most {} items",
    }
    said = [word.format(schema[key]) for key, word in words.items() if key in schema]
    said += [str(rule["message"]) for rule in schema.get("x-kubernetes-validations", ())]
    return "; ".join(said)


def schema_rows(schema: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Yield a row a field, the nested ones below."""
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        path, many = f"{prefix}{name}", each.get("type") == "array"
        inner = each.get("items", {}) if many else each
        default = "required" if name in required else code(json.dumps(each["default"])) if "default" in each else ""
        limits = "; ".join(filter(None, (limits_of(each), limits_of(inner) if many else "")))
        kind = "any JSON" if "x-kubernetes-preserve-unknown-fields" in each else type_of(each)
        yield code(path), kind, default, one_line(each.get("description")), limits
        yield from schema_rows(inner, f"{path}{'[]' if many else ''}.")


SCHEMA_HEAD = ("field", "type", "default", "meaning", "limits")


def manifest_page() -> str:
    """Return `connector.yaml`, field by field."""
    head = f"# The manifest: connector.yaml\n\n{inspect.getdoc(manifest_model)}\n"
    return f"{head}\n{table(SCHEMA_HEAD, schema_rows(manifest_schema()))}"


def resources_page() -> str:
    """Return both kinds, field by field."""
    parts = ["# The resources\n\n`apiVersion: penstock.io/v1alpha1`; `kubectl explain` says the same.\n"]
    for kind in ("ConnectorDefinition", "TenantConnection"):
        properties = schema_of(kind)["properties"]
        spec = dict(properties["spec"])
        if kind == "ConnectorDefinition":
            manifest = {key: value for key, value in spec["properties"]["manifest"].items() if key != "properties"}
            spec = {**spec, "properties": {**spec["properties"], "manifest": manifest}}
            manifest["description"] = "The whole connector.yaml: see manifest.md."
        parts += [f"## {kind}\n\n{one_line(spec.get('description'))}\n"]
        for name, part in (("spec", spec), ("status", properties["status"])):
            parts.append(table(SCHEMA_HEAD, schema_rows(part, f"{name}.")))
    return "\n".join(parts)


def protocol_page() -> str:
    """Return what a pod and the run API say to each other."""
    parts = [f"# The run protocol\n\n{inspect.getdoc(protocol)}\n\n{inspect.getdoc(protocol.Message)}\n"]
    for name, cls in vars(protocol).items():
        if inspect.isclass(cls) and issubclass(cls, protocol.Message) and cls is not protocol.Message:
            schema = cls.model_json_schema(by_alias=True)
            parts.append(f"## {name}\n\n{inspect.getdoc(cls)}\n")
            rows = [row[:3] for row in schema_rows({**schema, "properties": _flat(schema)})]
            parts += [table(SCHEMA_HEAD[:3], rows)] if rows else []
    return "\n".join(parts)


def _flat(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties without what is nested in them: each message has a heading of its own."""
    nested = ("properties", "title")
    fields = schema.get("properties", {}).items()
    return {name: {key: value for key, value in each.items() if key not in nested} for name, each in fields}


# -- The read API ---------------------------------------------------------------------------------

READ_API = """\
# The read API

`penstock serve` answers under `/v1`; the whole OpenAPI document is at `/openapi.json`. Each call takes a bearer token
(see [access](../access.md)) and answers JSON, but for logs, which are text.

A listing is a JSON list of at most `limit` items. If there are more, the answer has the header
`Link: <?…>; rel="next"` (RFC 8288): resolve it against the URL that you asked for, and follow it until an answer has none.
The `cursor` in it is opaque; only the listing that gave it takes it. Items that appear while you page are not shown twice.

An error has a status and the body of `ApiError`: a code, and a message that says what to do. A request that does not match
its schema has status 422 and FastAPI's `detail`.

No answer holds what only the platform's operator may see: operator messages, uids of Jobs and pods, hashes of tokens,
schemas and objects.
"""


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the application, which needs no server to describe itself."""
    authenticator = SimpleNamespace(person=None)
    services = SimpleNamespace(protocol=None, pool=None, authenticator=authenticator, logs=None)
    return create_app(cast("Services", services)).openapi()


def read_api_page() -> str:
    """Return the calls of the read API, and the models of their answers."""
    document = openapi_document()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "read API" in operation["tags"]
    ]
    parts = [READ_API, "## Calls\n", *(call_section(name, operation) for name, operation in operations), "## Models\n"]
    schemas = document["components"]["schemas"]
    for name in sorted(_models(operations, schemas) - {"HTTPValidationError", "ValidationError"}):
        schema = schemas[name]
        rows = [row[:4] for row in schema_rows({**schema, "properties": _flat(schema)})]
        parts.append(f"### {name}\n\n{one_line(schema.get('description'))}\n")
        parts += [table(SCHEMA_HEAD[:4], rows)] if rows else []
    return "\n".join(parts)


def call_section(name: str, operation: Mapping[str, Any]) -> str:
    """Return one call: its parameters, its body and its answer."""
    parameters = [
        (
            code(parameter["name"]),
            parameter["in"],
            type_of(parameter["schema"]),
            _meaning(parameter),
            limits_of(parameter["schema"]),
        )
        for parameter in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answer = operation["responses"]["200"]["content"]
    shape = type_of(answer["application/json"]["schema"]) if "application/json" in answer else "text"
    return "\n".join(
        [
            f"### {name}\n\n{one_line(operation.get('description'))}\n",
            *([table(("parameter", "in", "type", "meaning", "limits"), parameters)] if parameters else []),
            *([f"Body: {type_of(body)}.\n"] if body else []),
            f"Answer: {shape}.\n",
        ]
    )


def _meaning(parameter: Mapping[str, Any]) -> str:
    default = parameter["schema"].get("default")
    return "; ".join(
        filter(None, (parameter.get("description"), f"{code(str(default))} by default" if default else ""))
    )


def _models(found: Any, schemas: Mapping[str, Any]) -> set[str]:
    """Return the names of the models that a document refers to, and those that they refer to."""
    text = json.dumps(found)
    names = {name for name in schemas if f'"#/components/schemas/{name}"' in text}
    rest = {name: schema for name, schema in schemas.items() if name not in names}
    return names | (_models([schemas[name] for name in names], rest) if names else set())


# -- Commands and settings ------------------------------------------------------------------------


def commands_page(name: str, app: typer.Typer) -> str:
    """Return a command line as its own help has it."""
    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command, info_name=name), name=name)


def settings_page() -> str:
    """Return the variables of the environment."""
    rows = [(code(each.name), each.readers, code(each.default), each.meaning) for each in VARIABLES]
    head = "# Variables of the environment\n\nIn a cluster the chart sets them from its values.\n"
    return f"{head}\n{table(('variable', 'read by', 'default', 'meaning'), rows)}"


def reasons_page() -> str:
    """Return the closed list of reasons."""
    rows = [(code(name), meaning) for name, meaning in MEANINGS.items()]
    head = "# Reasons\n\nOf a condition, of a run and of an attempt: one of these, with a message beside it.\n"
    return f"{head}\n{table(('reason', 'what it means, and what to do'), rows)}"


LIMITS_HEAD = """\
# Limits

Beyond a limit, the platform refuses the input with a message that names the field and the limit, and nobody else is delayed.
The design note [0012](../design/0012-limits.md) says why the limits are where they are.

## The HTTP server
"""


def limits_page() -> str:
    """Return every limit of the platform."""
    messages = table(("field", "at most"), message_limits())
    parts = [LIMITS_HEAD, limit_table(SERVER_LIMITS), "## Documents\n", limit_table(DOCUMENT_LIMITS)]
    return "\n".join([*parts, "## Messages of the run API\n", messages])


def message_limits() -> Iterator[Row]:
    """Yield the limits of the messages of the run API, field by field."""
    for name, cls in vars(protocol).items():
        if not (inspect.isclass(cls) and issubclass(cls, protocol.Message)):
            continue
        for field, schema in cls.model_json_schema(by_alias=True).get("properties", {}).items():
            limits = ", ".join(_schema_limits(schema))
            if limits:
                yield code(f"{name}.{field}"), limits


def _schema_limits(schema: Mapping[str, Any]) -> Iterator[str]:
    units = {"maxItems": "items", "maxProperties": "entries", "maxLength": "characters", "maxBytes": "bytes as JSON"}
    for keyword, unit in units.items():
        if keyword in schema:
            yield f"{schema[keyword]:,} {unit}"
    for inner in (schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())):
        if isinstance(inner, dict):
            yield from (f"each {limit}" if inner is not schema else limit for limit in _schema_limits(inner))


def limit_table(limits: Iterable[Limit]) -> str:
    """Return limits as a table."""
    rows = [(limit.applies_to, f"{limit.value:,.0f} {limit.unit}", limit.reason) for limit in limits]
    return table(("what", "limit", "why"), rows)


PAGES = {
    "limits": limits_page,
    "contract": contract_page,
    "incremental": incremental_page,
    "http": http_page,
    "errors": errors_page,
    "manifest": manifest_page,
    "testing": testing_page,
    "author-commands": lambda: commands_page("penstock-connector", author_app),
    "resources": resources_page,
    "reasons": reasons_page,
    "operator-commands": lambda: commands_page("penstock", operator_app),
    "settings": settings_page,
    "read-api": read_api_page,
    "protocol": protocol_page,
}


def main(folder: Path) -> None:
    """Write every page, and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = []
    for name, make in PAGES.items():
        text = make().rstrip() + "\n"
        titles.append(f"- [{text.splitlines()[0].strip('# `')}]({name}.md)")
        (folder / f"{name}.md").write_text(HEADER + text)
    (folder / "README.md").write_text(f"{HEADER}# Reference\n\n" + "\n".join(titles) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
