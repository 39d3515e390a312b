"""Which SQL only reads: one query, no side effect."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from rhostream.errors import ConfigError
from rhostream.pipeline.sql.views import VIEWS

# DuckDB parses a COPY or an INSERT inside WITH as part of a SELECT statement, so the statement's type alone says
# nothing: the parsed query must consist of these nodes only.
_READING_NODES: Final = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

# Table functions that take SQL as text (query, json_execute_serialized_sql) would carry it past this check, others
# change the session; so these are named one by one.
_TABLE_FUNCTIONS: Final = {
    "duckdb_columns",
    "duckdb_functions",
    "duckdb_keywords",
    "duckdb_settings",
    "duckdb_tables",
    "duckdb_types",
    "duckdb_views",
    "generate_series",
    "glob",
    "histogram",
    "histogram_values",
    "json_each",
    "json_tree",
    "parquet_file_metadata",
    "parquet_full_metadata",
    "parquet_kv_metadata",
    "parquet_metadata",
    "parquet_scan",
    "parquet_schema",
    "pragma_version",
    "range",
    "read_blob",
    "read_csv",
    "read_csv_auto",
    "read_json",
    "read_json_auto",
    "read_json_objects",
    "read_ndjson",
    "read_ndjson_auto",
    "read_ndjson_objects",
    "read_parquet",
    "read_text",
    "repeat",
    "sniff_csv",
    "summary",
    "unnest",
}

_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(\([^()]*\)\s*)?", re.IGNORECASE)
_REMEDY: Final = "write one SELECT, WITH, FROM, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"


def check_read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, set[str]]:
    """The one statement in `sql`, if it reads and does nothing else; `connection` only parses it.

    Returns:
        The statement, and the names of what it reads, in lower case: tables, views, and functions that list these.

    Raises:
        ConfigError: no statement, several, or one that is or contains anything but a query.
        duckdb.ParserException: a syntax error.
    """
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ConfigError(f"{len(statements)} SQL statements in {sql!r}, need exactly one: {_REMEDY}")
    statement = statements[0]
    query = statement.query
    kind = _type(statement)
    if kind == "EXPLAIN":
        query = _EXPLAIN.sub("", query, count=1)
    parsed = _parse(connection, query)
    if parsed is None:
        hint = "give PIVOT its columns as IN (…)" if kind == "MULTI" else _REMEDY
        raise ConfigError(f"not a statement that only reads ({kind}): {hint}")
    tables, inner = set(), set()
    for node in _nodes(parsed):
        if "cte_map" in node:
            inner |= {entry["key"].lower() for entry in node["cte_map"]["map"]}
        if isinstance(table := node.get("table_name"), str):
            tables.add(table.lower())
        part = node.get("type")
        if ("cte_map" in node or str(part).endswith("_NODE")) and part not in _READING_NODES:
            raise ConfigError(f"the query contains a part that does more than read ({part}): {_REMEDY}")
        if part == "TABLE_FUNCTION":
            name = node["function"]["function_name"]
            if name not in _TABLE_FUNCTIONS:
                raise ConfigError(
                    f"table function {name!r} is none of those a query may call: {', '.join(sorted(_TABLE_FUNCTIONS))}"
                )
            if name.startswith("duckdb_"):
                tables.add(name)
    # A view may be read inside a part of WITH that bears its name.
    return statement.query, {name for name in tables if name and (name not in inner or name in VIEWS)}


def _type(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type).rpartition(".")[2]
    except ValueError:  # DuckDB knows types that its Python package has no name for (UPDATE EXTENSIONS)
        return "OTHER"


def _parse(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """The parsed query, None where it is not exactly one."""
    ((parsed,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    answer = json.loads(parsed)
    return answer["statements"][0] if not answer["error"] and len(answer["statements"]) == 1 else None


def _nodes(parsed: Any) -> Iterator[dict[str, Any]]:
    stack = [parsed]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
