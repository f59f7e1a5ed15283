"""Wages, paid exactly once: steps that write their own tables in the very transaction that records them.

    $ python -m dalsegno.examples wages --store postgresql:// --crash    # dies while it pays Bob
    $ python -m dalsegno.examples wages --store postgresql://            # goes on there
    Ada 100, Bob 100, Cyd 100, Dan 0; the company has 50

`UPDATE account SET balance = balance + 100` is as far from harmless as a step can be: run twice, it pays twice. With
`transactional=True` the engine gives its body a connection to the store's database, and commits what the body wrote
together with its outcome. So there is no moment at which one is there without the other, and no key by which the bank
would have to know a payment again.

The database says who cannot be paid: the constraint on the company's balance fails the step, its transaction is undone,
and the workflow catches the error as any other.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from psycopg.errors import CheckViolation

from dalsegno import Engine, Flow, step, step_context, workflow

COMPANY = "the company"


@step(transactional=True)
def open_accounts(names: list[str], funds: int) -> None:
    """Make the table, which then stands in the database beside the store's schema, and an account for each."""
    connection = step_context().connection
    connection.execute(
        "CREATE TABLE IF NOT EXISTS account (owner text PRIMARY KEY, balance integer NOT NULL CHECK (balance >= 0))"
    )
    with connection.cursor() as cursor:
        rows = [(COMPANY, funds), *((name, 0) for name in names)]
        cursor.executemany("INSERT INTO account VALUES (%s, %s) ON CONFLICT DO NOTHING", rows)


@step(transactional=True)
def pay(name: str, amount: int) -> int:
    """Move money from the company to somebody; answers what he has then."""
    connection = step_context().connection
    connection.execute("UPDATE account SET balance = balance - %s WHERE owner = %s", [amount, COMPANY])
    after_taking(name)
    raised = "UPDATE account SET balance = balance + %s WHERE owner = %s RETURNING balance"
    ((balance,),) = connection.execute(raised, [amount, name]).fetchall()
    return int(balance)


@step(transactional=True)
def balances() -> dict[str, int]:
    """What everybody has."""
    rows = step_context().connection.execute("SELECT owner, balance FROM account ORDER BY owner").fetchall()
    return {str(owner): int(balance) for owner, balance in rows}


@workflow
def pay_wages(names: list[str], amount: int, funds: int) -> Flow[dict[str, int]]:
    """Pay one after another, for as long as there is money."""
    yield from open_accounts(names, funds)
    for name in names:
        try:
            yield from pay(name, amount)
        except CheckViolation:
            break
    return (yield from balances())


def nothing(_: str) -> None:
    """What happens half-way through a payment on an ordinary day."""


def die_at_bob(name: str) -> None:
    """What happens on the day of the crash: the money is taken, and Bob has not got it."""
    if name == "Bob":
        os._exit(1)


after_taking: Callable[[str], None] = nothing


def main() -> None:
    """Pay four people of whom three can be paid."""
    global after_taking
    parser = argparse.ArgumentParser(description="Pay wages, each exactly once.")
    parser.add_argument("--store", default="postgresql://", help="the database of both (default: %(default)s)")
    parser.add_argument("--crash", action="store_true", help="die half-way through a payment")
    options = parser.parse_args()
    after_taking = die_at_bob if options.crash else nothing
    with Engine(options.store, workflows=[pay_wages], steps=[open_accounts, pay, balances]) as engine:
        run = engine.start(pay_wages, ["Ada", "Bob", "Cyd", "Dan"], 100, 350, id="wages")
        result = run.result()
    company = result.pop(COMPANY)
    print(f"{', '.join(f'{name} {balance}' for name, balance in result.items())}; {COMPANY} has {company}")
