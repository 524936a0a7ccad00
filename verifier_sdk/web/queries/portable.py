"""Expressions that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class Whole(FunctionElement[int]):
    """The whole part of a number from 0 on: SQLite may lack floor, PostgreSQL's cast rounds."""

    type = BigInteger()
    name = "whole"
    inherit_cache = True


@compiles(Whole)
def _floor(element: Whole, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"CAST(FLOOR({compiler.process(element.clauses, **options)}) AS BIGINT)"


@compiles(Whole, "sqlite")
def _cast(element: Whole, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"


def whole(expression: ColumnElement[Any]) -> Whole:
    """Return the whole part of an expression that is 0 or more."""
    return Whole(expression)
