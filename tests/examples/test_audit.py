"""The audit from end to end, on small trees: its report, its wait for a person, and what it does with bad files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno import Client, Engine, collect
from dalsegno.examples import audit
from dalsegno.examples.audit import Approval, audit_tree
from dalsegno.examples.audit_measure import packages_of
from dalsegno.examples.ledger import Reader

YES = Approval(granted=True, by="Ada", comment="looks right")
TREE = {
    "top.py": "x = 1\n",
    "one/__init__.py": '"""One."""\n',
    "one/code.py": "import os\n\ndef f(x):\n    return 1 if x else 2\n",
    "one/two/old.py": "print 'old'\n",
    "one/tests/test_code.py": "assert True\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of five files in four packages, one of which does not parse."""
    root = tmp_path / "tree"
    for path, text in TREE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture(params=["memory:", "lmdb:"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine that serves the audit, on each of the stores."""
    url = "memory:" if request.param == "memory:" else f"lmdb:{tmp_path / 'store'}"
    with Engine(url, workflows=collect(audit)) as engine:
        yield engine


def test_an_approved_audit_publishes_its_report(engine: Engine, tree: Path, tmp_path: Path):
    """Every file is measured once, what does not parse is a finding, and both forms of the report are written."""
    ledger = tmp_path / "ledger.jsonl"
    run = engine.start(audit_tree, str(tree), str(tmp_path / "out"), str(ledger), id="audit")
    run.signal("approval", YES)
    audited = run.result(timeout=30)
    assert (audited.files, audited.findings, audited.published, audited.why) == (5, 1, True, "looks right")
    report = json.loads(Path(audited.json).read_text())
    assert [package["name"] for package in report["packages"]] == [".", "one", "one.tests", "one.two"]
    assert report["run_id"] == run.run_id
    assert "one/two/old.py" in Path(audited.html).read_text()
    about = sorted(entry.about for entry in Reader(ledger).read())
    assert about == sorted(["list", *TREE, "report.json", "report.html"])
    assert dict(run.state) == {
        "stage": "published",
        "files": 5,
        "packages": 4,
        "packages_done": 4,
        "findings": 1,
    }


def test_tests_can_be_left_out(engine: Engine, tree: Path, tmp_path: Path):
    """Folders of tests are passed over where that is asked for."""
    run = engine.start(audit_tree, str(tree), str(tmp_path), str(tmp_path / "ledger"), False, id="audit")
    run.signal("approval", YES)
    assert run.result(timeout=30).files == 4


def test_a_declined_audit_writes_nothing(engine: Engine, tree: Path, tmp_path: Path):
    """When the person says no, no report is written and the answer says who it was."""
    run = engine.start(audit_tree, str(tree), str(tmp_path / "out"), str(tmp_path / "ledger"), id="audit")
    run.signal("approval", Approval(granted=False, by="Ada"))
    audited = run.result(timeout=30)
    assert (audited.published, audited.why, audited.json) == (False, "declined by Ada", "")
    assert not (tmp_path / "out").exists()


def test_nobody_answers(engine: Engine, tree: Path, tmp_path: Path):
    """When the time for an answer is over, the audit ends unpublished."""
    patience = timedelta(milliseconds=50)
    run = engine.start(
        audit_tree, str(tree), str(tmp_path / "out"), str(tmp_path / "ledger"), True, patience, id="audit"
    )
    audited = run.result(timeout=30)
    assert not audited.published
    assert "nobody answered" in audited.why


def test_an_empty_tree_is_audited(engine: Engine, tmp_path: Path):
    """A folder without a Python file has a report of nothing."""
    (tmp_path / "empty").mkdir()
    run = engine.start(audit_tree, str(tmp_path / "empty"), str(tmp_path / "out"), str(tmp_path / "ledger"), id="audit")
    run.signal("approval", YES)
    audited = run.result(timeout=30)
    assert (audited.files, audited.published) == (0, True)


def test_a_root_that_is_not_there_fails_the_audit(engine: Engine, tmp_path: Path):
    """The run fails with the error of the listing step, as the exception that it was."""
    run = engine.start(audit_tree, str(tmp_path / "gone"), str(tmp_path), str(tmp_path / "ledger"), id="audit")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        run.result(timeout=30)


def test_a_file_that_vanishes_is_a_finding(engine: Engine, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that was listed and is gone when its turn comes does not fail the audit."""
    listed = packages_of(tree, tests=True)
    (tree / "top.py").unlink()
    monkeypatch.setattr(audit, "packages_of", lambda root, tests: listed)
    run = engine.start(audit_tree, str(tree), str(tmp_path / "out"), str(tmp_path / "ledger"), id="audit")
    run.signal("approval", YES)
    audited = run.result(timeout=30)
    assert (audited.files, audited.findings) == (5, 2)
    assert "vanished" in Path(audited.html).read_text()


def test_an_approval_given_while_nobody_works(tree: Path, tmp_path: Path):
    """The audit waits through a restart; an approval sent meanwhile counts, and no step runs again."""
    url, ledger = f"lmdb:{tmp_path / 'store'}", Reader(tmp_path / "ledger")
    arguments = (str(tree), str(tmp_path / "out"), str(ledger.path))
    with Engine(url, workflows=collect(audit)) as engine:
        run = engine.start(audit_tree, *arguments, id="audit")
        while run.state.get("stage") != "waiting for approval":
            assert run.status.open
    with Client(url) as client:
        client.get("audit").signal("approval", YES)
    with Engine(url, workflows=collect(audit)) as engine:
        assert engine.start(audit_tree, *arguments, id="audit").result(timeout=30).published
    keys = [entry.key for entry in ledger.read()]
    assert len(keys) == len(set(keys)) == len(TREE) + 3
