"""What a type checker knows about a transactional step. Both checkers read this file; nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

import psycopg

from dalsegno import Flow, step, step_context, workflow


@step(transactional=True, timeout=5)
def pay(who: str, amount: int) -> int:
    connection = step_context().connection
    assert_type(connection, psycopg.Connection[Any])
    query = "UPDATE account SET balance = balance + %s WHERE owner = %s RETURNING balance"
    ((balance,),) = connection.execute(query, [amount, who]).fetchall()
    return int(balance)


@workflow
def paying(who: str) -> Flow[int]:
    balance = yield from pay(who, 100)
    assert_type(balance, int)
    return (yield from pay.options(transactional=True, timeout=9)(who, 100))
