"""Judging SQL of definitions where no parser of the engine's own can be asked.

Calls and keywords are looked for among the tokens, so that nothing can hide behind a parser that
reads the text otherwise than the engine does. Relations are looked for in a tree, where an engine
lets files, stages or other systems stand for tables. The session enforces the same once more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from virtualfs.capabilities import Capabilities, Lexis
from virtualfs.compiler.allow_list import (
    FunctionCatalog,
    Kind,
    SqlFunction,
    SqlUse,
    not_rowwise,
    refuse_call,
)
from virtualfs.compiler.tokens import Token, calls_in, is_word
from virtualfs.compiler.user_sql import check_shape, with_neighbours
from virtualfs.errors import DefinitionError

__all__ = ["check_relations", "check_tokens", "function_by_name", "known_functions"]


def check_tokens(
    text: str,
    use: SqlUse,
    lexis: Lexis,
    catalog: FunctionCatalog,
    aliases: Collection[int] = (),
) -> tuple[Token, ...]:
    """Check a text by its tokens alone, with what every engine has in common; return them.

    Parameters
    ----------
    aliases
        Where names stand that are followed by parentheses but are no functions.

    Raises
    ------
    DefinitionError
        It does more than read, calls what it may not, or is an expression that is not row-wise.
    """
    tokens = check_shape(text, use, lexis)
    if use == "expression":
        _refuse_clauses(tokens)
    for before, token, after in with_neighbours(tokens):
        if token.kind == "string" and after is not None and after.text == "(":
            raise DefinitionError(f"not SQL: {token.text} is a string and cannot be called")
        if is_word(token, "into") or (
            is_word(token, "insert", "update", "delete", "merge") and before and before.text in "()"
        ):
            raise DefinitionError(f"stored SQL may only read; found {token.text.upper()}")
        if is_word(token, "for") and after and is_word(after, "update", "share", "no", "key"):
            raise DefinitionError("stored SQL may only read; found FOR UPDATE")
        if token.kind == "operator" and any(each in token.text for each in catalog.operators):
            raise DefinitionError(f"the operator {token.text} calls a function that may not be")
        if use == "expression":
            _refuse_many_rows(before, token, after)
            if is_word(token, "in") and after and is_word(after, "values", "from"):
                raise DefinitionError(not_rowwise("a subquery"))
            if is_word(token, *_CLOCK_WORDS) and (before is None or before.text != "."):
                raise DefinitionError(
                    f"{token.text} gives another answer on each run, or to each user, so it "
                    "cannot be part of a definition"
                )
    for call in calls_in(tokens):
        token = tokens[call.position]
        before = tokens[call.position - 1] if call.position else None
        names_columns = before is not None and is_word(before, "as", "with", "recursive")
        is_keyword = (
            token.kind == "word"
            and not call.qualifiers
            and call.name.lower() in _NOT_FUNCTIONS
            and (not catalog.is_complete or call.name.lower() not in catalog.functions)
        )
        if is_keyword or names_columns or token.start in aliases:
            continue
        if call.qualifiers and not catalog.is_complete and call.qualifiers != ("SAFE",):
            raise DefinitionError(
                f"{'.'.join(call.qualifiers)}.{call.name}() is no function of the engine's own"
            )
        refuse_call(catalog, call.name, call.arguments, use)
    return tokens


_NOT_FUNCTIONS = frozenset((
    "all", "and", "any", "approximate", "array", "as", "at", "before", "bernoulli", "between",
    "by", "case", "cast", "coalesce", "cube", "distinct", "else", "except", "exists",
    "extract", "filter", "from", "group", "grouping", "having", "in", "intersect", "interval",
    "is", "join", "lateral", "like", "limit", "match_condition", "match_recognize", "not",
    "nullif", "offset", "on", "operator", "or", "order", "over", "overlay", "pivot",
    "position", "rollup", "row", "rows", "sample", "select", "sets", "some", "system",
    "table", "tablesample", "then", "trim", "union", "unpivot", "using", "values", "when",
    "where", "window", "with", "within",
))  # fmt: skip
"""Words before parentheses that are no functions, or pure ones of a syntax of their own."""


def _refuse_clauses(tokens: Sequence[Token]) -> None:
    """Refuse words that would end an expression, outside of parentheses."""
    depth = 0
    for before, token, _ in with_neighbours(tokens):
        if token.kind == "punctuation":
            depth += (token.text in "([{") - (token.text in ")]}")
        is_distinct_from = before is not None and is_word(before, "distinct")
        if depth == 0 and is_word(token, *_CLAUSES) and not is_distinct_from:
            raise DefinitionError(
                f"expected one expression such as temp <= 32; it ends before {token.text}"
            )


_CLOCK_WORDS = (
    "current_date", "current_datetime", "current_time", "current_timestamp", "localtime",
    "localtimestamp", "sysdate", "current_user", "session_user", "current_role",
    "current_catalog", "current_schema",
)  # fmt: skip
_CLAUSES = (
    "from", "where", "group", "having", "order", "limit", "union", "intersect", "except", "as",
)  # fmt: skip


def _refuse_many_rows(before: Token | None, token: Token, after: Token | None) -> None:
    opens = after is not None and after.text == "("
    follows = before is not None and before.text == "("
    is_query = is_word(token, "select", "table") or (opens and is_word(token, "values"))
    if is_query or (follows and is_word(token, "from", "values")) or token.text == "|>":
        raise DefinitionError(not_rowwise("a subquery"))
    closes = before is not None and before.text == ")"
    if is_word(token, "over") and closes:
        raise DefinitionError(not_rowwise("a window function"))
    if is_word(token, "filter", "within") and closes:
        raise DefinitionError(not_rowwise("an aggregate"))


def check_relations(text: str, use: SqlUse, capabilities: Capabilities) -> frozenset[int]:
    """Check what a text reads from, where the engine has more to read from than its tables.

    Returns
    -------
    frozenset of int
        Where names stand that are followed by parentheses but are no functions: aliases.

    Raises
    ------
    DefinitionError
        It cannot be parsed, or reads from anything but tables and views.
    """
    head = "SELECT " if use == "expression" else ""
    try:
        tree = sqlglot.parse_one(head + text, dialect=capabilities.dialect)
    except (SqlglotError, RecursionError) as error:
        raise DefinitionError(f"not SQL: {_first_line(error)}") from None
    for node in tree.find_all(
        exp.DDL, exp.DML, exp.Command, exp.Into, exp.Lock, exp.QueryTransform
    ):
        raise DefinitionError(f"stored SQL may only read; found {node.key.upper()}")
    if use == "expression" and any(
        part.find(exp.Table, exp.Query) is not None for part in tree.expressions
    ):
        raise DefinitionError(not_rowwise("a subquery"))
    for table in tree.find_all(exp.Table):
        parts = [part.name for part in table.parts]
        if isinstance(table.this, exp.Func):
            name = (
                table.this.name if isinstance(table.this, exp.Anonymous) else table.this.sql_name()
            )
            if name.lower() not in _SETS:
                raise DefinitionError(
                    f"{name.lower()}() reads outside the warehouse's tables; of functions only "
                    f"{', '.join(sorted(_SETS))} may stand in FROM"
                )
        elif not isinstance(table.this, exp.Identifier):
            raise DefinitionError(f"{table.sql(capabilities.dialect)} is no table")
        elif _FILE.search(".".join(parts)) or parts[0].lower() in _FORMATS:
            raise DefinitionError(f"{'.'.join(parts)!r} names a file; use path= for files")
        elif any(part.lower() in _SYSTEM_SCHEMAS for part in parts[:-1]) or any(
            _SYSTEM.search(part) for part in parts
        ):
            raise DefinitionError(f"{'.'.join(parts)!r} is about the engine, not a table of yours")
    aliases = [node.this for node in tree.find_all(exp.TableAlias) if node.this]
    starts = (alias.meta.get("start") for alias in aliases if isinstance(alias, exp.Identifier))
    return frozenset(start - len(head) for start in starts if start is not None)


_FILE = re.compile(
    r"(://|/|\\|\*|^@|\.(parquet|csv|tsv|json|jsonl|ndjson|orc|avro|xlsx|txt)(\.\w+)?$)"
)
_FORMATS = frozenset((
    "avro", "binaryfile", "csv", "delta", "hudi", "iceberg", "image", "jdbc", "json",
    "libsvm", "orc", "parquet", "text", "xml",
))  # fmt: skip
"""What names a format of files where a schema would stand."""
_SYSTEM_SCHEMAS = frozenset((
    "account_usage", "data_sharing_usage", "information_schema", "organization_usage",
    "pg_catalog", "reader_account_usage", "stl_scan", "svv_table_info", "sys", "system",
))  # fmt: skip
_SETS = frozenset(
    [
        "exploding_generate_series",
        "explode",
        "flatten",
        "generate_series",
        "range",
        "sequence",
        "unnest",
    ]
)


_SYSTEM = re.compile(
    r"information_schema|^__tables|^(stl|stv|svl|svv|svcs)_|^pg_|\$|^jmx$", re.IGNORECASE
)


def _first_line(error: Exception) -> str:
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
    return lines[0] if lines else type(error).__name__


_OUTSIDE = re.compile(
    r"read_\w+|scan_\w+|\w+_scan|glob|getenv|input_file_\w+|(current|session)_(?!date|time)\w+|user|"
    r"\w*version\w*|java_method|(try_)?reflect|system\$\w+|external_query|http_\w+|ai_\w+|ml_\w+|"
    r"(get|set)_?variable|get_\w*(url|path|ddl)|build_\w*url|result_scan|"
    r"last_query_id|load_\w+|copy_\w+|lo_\w+|pg_(?!typeof)\w+|set_config|current_setting|"
    r"dblink\w*|query|table|identifier|is_role_\w+|is_\w*_in_session|keys\.\w+|net\.\w+|"
    r"ml\.\w+|spark_partition_id|monotonically_increasing_id|from_avro|to_avro|assert_true|"
    r"raise_error|error|sleep|wait|secret|try_secret|http_request|collations|"
    r"predict|generate(_\w+)?|embed|similarity|search|features_at_time|forecast|a_i_\w+|m_l_\w+|"
    r"list_secrets|remote_query|vector_search|cloud_files_state|event_log|read_files",
    re.IGNORECASE,
)
_VOLATILE = re.compile(
    r"rand\w*|uuid\w*|gen_random_uuid|generate_uuid|newid|uniform|normal|zipf|seq\d|shuffle|setseed|"
    r"nextval|currval|sequence_nextval|timeofday|clock_timestamp|sysdate|systimestamp",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"now|today|current_(date\w*|time\w*|localtime\w*)|current(date|time\w*)|getdate|getutcdate|"
    r"local_?time\w*|unix_timestamp|utc_\w+|curdate|curtime|transaction_timestamp|"
    r"statement_timestamp",
    re.IGNORECASE,
)
_SET_FUNCTIONS = re.compile(
    r"explode\w*|posexplode\w*|inline\w*|stack|unnest|flatten|json_tuple", re.I
)


_OTHERS = frozenset((
    "any_match", "approx_most_frequent", "approx_percentile", "as_integer", "at_timezone",
    "bround", "btrim", "checksum", "codepoint", "combinations", "conditional_true_event",
    "conv", "cosine_similarity", "crc32", "date_bucket", "date_part", "entropy", "fnv_hash",
    "forall", "format_number", "from_json", "func_sha1", "geometric_mean", "hash",
    "haversine", "histogram", "histogram_numeric", "hypot", "ieee_divide", "infinity",
    "is_valid_json", "json_array_length", "json_query", "json_tuple", "json_value", "listagg",
    "log1p", "make_date", "map_agg", "map_filter", "multimap_agg", "nan", "ngrams",
    "numeric_histogram", "offset", "ordinal", "percentile", "percentile_approx",
    "percentile_cont", "percentile_disc", "pmod", "range", "ratio_to_report", "replicate",
    "safe_cast", "safe_offset", "safe_ordinal", "session_window", "split_to_table",
    "st_geogpoint", "stack", "timestamp_seconds", "transform_values", "try_to_number",
    "url_decode", "url_extract_host", "weekday", "with_timezone", "word_stem", "xxhash64",
    "zip", "zip_with",
))  # fmt: skip
"""Functions of some engines that sqlglot does not know."""
_AGGREGATES = frozenset((
    "approx_most_frequent", "approx_percentile", "checksum", "collect_list", "collect_set",
    "conditional_true_event", "entropy", "geometric_mean", "histogram", "histogram_numeric",
    "listagg", "map_agg", "multimap_agg", "numeric_histogram", "percentile",
    "percentile_approx", "percentile_cont", "percentile_disc", "ratio_to_report",
))  # fmt: skip
"""Those of many rows among all that are listed, beside the ones that sqlglot knows."""


@cache
def known_functions(dialect: str, others: Collection[str] = ()) -> FunctionCatalog:
    """Return the functions that sqlglot knows of a dialect, and some more by name.

    For engines whose own catalog cannot be asked. A name that is in neither list is refused.
    """
    named: Iterable[str] = {
        *sqlglot.Dialect.get_or_raise(dialect).parser_class.FUNCTIONS,
        *exp.FUNCTION_BY_NAME,
        *_OTHERS,
        *others,
    }
    return FunctionCatalog.of(
        ((name, function_by_name(name)) for name in sorted(named)), is_complete=False
    )


def function_by_name(name: str, kind: Kind | None = None) -> SqlFunction:
    """Return what a function's name tells of it, for engines that say no more.

    Parameters
    ----------
    kind
        Where the engine does say it.
    """
    known = exp.FUNCTION_BY_NAME.get(name.upper())
    is_aggregate = name.lower() in _AGGREGATES
    is_aggregate = is_aggregate or (known is not None and issubclass(known, exp.AggFunc))
    is_set = bool(_SET_FUNCTIONS.fullmatch(name))
    volatile, clock = _VOLATILE.fullmatch(name), _CLOCK.fullmatch(name)
    return SqlFunction(
        kind=kind or ("aggregate" if is_aggregate else "set" if is_set else "scalar"),
        stability="volatile" if volatile else "clock" if clock else "pure",
        reaches_outside=bool(_OUTSIDE.fullmatch(name)),
    )
