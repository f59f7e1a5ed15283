"""A model pipeline on real data: train candidates side by side, let a person choose to deploy the best one.

    prepare      scikit-learn's 1,797 handwritten digits, split and scaled, into one .npz file
    train        several linear models at the same time, each into a JSON file of plain numbers
    evaluate     every candidate on digits it has not seen
    approval     a person looks at the scores; the run waits for the signal `approval`
    deploy       the winner takes the place of what was served before, in one rename
    verify       a predictor of ten lines, without scikit-learn, loads what was deployed and must score the same

No pickle: a model here is its coefficients and its intercepts, so what is deployed is data that can be read, compared
and loaded anywhere, and loading it runs nobody's code. Files are named by the step that made them, so a step that is
repeated after a crash writes the same file again.

    $ python -m dalsegno.examples pipeline ./digits
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import MultinomialNB

from dalsegno import All, Engine, Flow, Map, Permanent, Publish, Receive, collect, step, workflow
from dalsegno.examples.audit_report import write_whole

Floats = npt.NDArray[np.float64]
Digits = npt.NDArray[np.int64]

BRIGHTEST = 16.0  # the images are 8 x 8 pixels of 0 to 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where the prepared data is, and how much of it."""

    path: str
    training: int
    testing: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained model: its name and the file it is in."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Score:
    """How well a candidate did on digits it had not seen."""

    candidate: Candidate
    accuracy: float


@dataclass(frozen=True, slots=True)
class Approval:
    """The payload of the signal `approval`. `choice` names another candidate than the best, where wanted."""

    granted: bool
    by: str
    choice: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is served now, on whose word, and how well it does."""

    candidate: str
    path: str
    accuracy: float
    by: str


class Rejected(Exception):
    """A person looked at the scores and said no."""


def _logistic(x: Floats, y: Digits) -> tuple[Floats, Floats]:
    model = LogisticRegression(max_iter=500).fit(x, y)
    return model.coef_, model.intercept_


def _ridge(x: Floats, y: Digits) -> tuple[Floats, Floats]:
    model = RidgeClassifier(alpha=1.0).fit(x, y)
    return model.coef_, model.intercept_


def _bayes(x: Floats, y: Digits) -> tuple[Floats, Floats]:
    # The logarithm of a product of likelihoods is a sum, which makes this a linear model like the others.
    model = MultinomialNB().fit(x, y)
    return model.feature_log_prob_, model.class_log_prior_


TRAINERS: dict[str, Callable[[Floats, Digits], tuple[Floats, Floats]]] = {
    "logistic": _logistic,
    "ridge": _ridge,
    "bayes": _bayes,
}


class Predictor:
    """Loads a model and uses it: ten lines that need numpy and nothing else."""

    def __init__(self, path: str) -> None:
        model: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
        self.name: str = model["name"]
        self.coefficients, self.intercepts = np.array(model["coefficients"]), np.array(model["intercepts"])

    def predict(self, x: Floats) -> Digits:
        """The digit that each row of pixels shows."""
        return cast(Digits, np.argmax(x @ self.coefficients.T + self.intercepts, axis=1))

    def accuracy(self, x: Floats, y: Digits) -> float:
        """The share of rows it gets right."""
        return float((self.predict(x) == y).mean())


def _load(dataset: Dataset, part: str) -> tuple[Floats, Digits]:
    with np.load(dataset.path, allow_pickle=False) as arrays:
        return arrays[f"x_{part}"], arrays[f"y_{part}"]


@step
def prepare(folder: str, seed: int) -> Dataset:
    """Split the digits into a part to learn from and a part to be tested on."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / BRIGHTEST, y, test_size=0.3, random_state=seed, stratify=y)
    path = Path(folder, "digits.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(".digits.half.npz")
    np.savez_compressed(half, x_train=x_train, x_test=x_test, y_train=y_train, y_test=y_test)
    half.replace(path)
    return Dataset(str(path), len(y_train), len(y_test))


@step(long=True)
def train(name: str, dataset: Dataset, folder: str) -> Candidate:
    """Train one kind of model and write its numbers."""
    if name not in TRAINERS:
        raise Permanent(f"no trainer is called {name!r}; there are {', '.join(TRAINERS)}")
    coefficients, intercepts = TRAINERS[name](*_load(dataset, "train"))
    model = {"name": name, "coefficients": coefficients.tolist(), "intercepts": intercepts.tolist()}
    return Candidate(name, write_whole(Path(folder, f"{name}.json"), json.dumps(model)))


@step
def evaluate(candidate: Candidate, dataset: Dataset) -> Score:
    """Score a candidate on the digits kept back."""
    return Score(candidate, Predictor(candidate.path).accuracy(*_load(dataset, "test")))


@step
def deploy(candidate: Candidate, target: str) -> str:
    """Put a copy of the candidate where it is served from, in one rename."""
    return write_whole(Path(target), Path(candidate.path).read_text("utf-8"))


@step
def verify(path: str, dataset: Dataset, expected: float) -> float:
    """Load what is served, as its users do, and make sure that it is the model that was chosen."""
    found = Predictor(path).accuracy(*_load(dataset, "test"))
    if found != expected:
        raise Permanent(f"{path} scores {found:.4f}, and the approved candidate scored {expected:.4f}")
    return found


@workflow
def train_and_deploy(
    folder: str, target: str, candidates: list[str], seed: int = 0, patience: timedelta = timedelta(days=7)
) -> Flow[Deployment]:
    """Train the candidates, wait for a person, deploy. Raises `Rejected`, or `TimedOut` when nobody answers."""
    dataset = yield from prepare(folder, seed)
    trained = yield from All([train(name, dataset, folder) for name in candidates])
    scores = yield from Map(lambda candidate: evaluate(candidate, dataset), trained, concurrency=4)
    ranked = sorted(scores, key=lambda score: (-score.accuracy, score.candidate.name))
    yield from Publish("scores", {score.candidate.name: score.accuracy for score in ranked})
    approval = yield from Receive("approval", Approval, timeout=patience)
    chosen = next((s for s in ranked if s.candidate.name == approval.choice), None) if approval.choice else ranked[0]
    if not approval.granted or chosen is None:
        raise Rejected(
            f"by {approval.by}" if chosen else f"{approval.by} chose {approval.choice!r}, which is not there"
        )
    path = yield from deploy(chosen.candidate, target)
    accuracy = yield from verify(path, dataset, chosen.accuracy)
    return Deployment(chosen.candidate.name, path, accuracy, approval.by)


def main() -> None:
    """Train, show the scores, ask, deploy."""
    parser = argparse.ArgumentParser(description="Train models on the digits, ask, deploy the best.")
    parser.add_argument("folder", help="where the store, the candidates and the deployed model go")
    folder = Path(parser.parse_args().folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Engine(f"lmdb:{folder / 'store'}", workflows=collect(sys.modules[__name__])) as engine:
        run = engine.start(train_and_deploy, str(folder / "work"), str(folder / "model.json"), [*TRAINERS], id="digits")
        while run.status.open and "scores" not in run.state:
            time.sleep(0.1)
        if run.status.open:
            print("\n".join(f"{name:10} {accuracy:.1%}" for name, accuracy in run.state["scores"].items()))
            yes = input("Deploy the best one? [y/N] ").lower().startswith("y")
            run.signal("approval", Approval(granted=yes, by="the command line"), dedup="answer")
        print(run.result())
