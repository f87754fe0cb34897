"""The limits of a model that its records show, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from fastccsa.cards.facts import Facts
from fastccsa.cards.performance import OVER_ALL
from fastccsa.evaluation.tuning import COVERAGE

FEW = 30  # test images of a class in a domain, below which a recall says little


def limits(facts: Facts) -> list[str]:
    """Return the limits that the facts of a card show; names from outside are not escaped."""
    return list(_limits(facts))


def _limits(facts: Facts) -> Iterator[str]:
    yield "The model has been judged on stored images only, and not in care. It is not a medical device."
    yield (
        "It answers with one of its classes whatever the image shows: diseases and objects that are none of "
        "them get one of these names."
    )
    performance = facts.get("performance")
    if performance is None:
        yield "There are no test outputs beside the model: how well it does is not known from this card."
        return
    yield "Intervals cover the test images, and not what training again with another seed would change."
    yield from _of_images(facts, performance)
    yield from _of_scores(performance)


def _of_images(facts: Facts, performance: Facts) -> Iterator[str]:
    problem = (facts.get("data") or {}).get("problem")
    if problem:
        yield f"{problem}: images are not counted here, and images of one lesion or patient count as independent."
    replaced = facts["training"]["replaced_images"]
    if replaced:
        yield f"{replaced} training images could not be read, and were replaced by others of their class and domain."
    few = [
        f"{name} in {domain} ({count})"
        for domain, counts in performance["test_images_by_class"].items()
        for name, count in counts.items()
        if 0 < count < FEW
    ]
    if few:
        yield f"Fewer than {FEW} test images: {', '.join(few)}."
    absent = [
        f"{', '.join(name for name, count in counts.items() if not count)} in {domain}"
        for domain, counts in performance["test_images_by_class"].items()
        if not all(counts.values())
    ]
    if absent:
        yield f"Without test images, and left out of means: {'; '.join(absent)}."
    single = [
        domain for domain, counts in performance["test_images_by_class"].items() if sum(map(bool, counts.values())) == 1
    ]
    if single:
        yield f"A single class, so that nothing can be told apart: {', '.join(single)}."


def _of_scores(performance: Facts) -> Iterator[str]:
    scores = {name: values for name, values in performance["scores"].items() if name != OVER_ALL}
    recalls = sorted((values["recall"][0], name) for name, values in scores.items() if "recall" in values)
    if len(recalls) > 1:
        (low, worst), (high, best) = recalls[0], recalls[-1]
        yield (
            f"Macro-average recall differs between domains: {100 * high:.1f} % on {best}, {100 * low:.1f} % on {worst}."
        )
    short = [
        f"{name} ({100 * values['coverage'][0]:.1f} %)"
        for name, values in scores.items()
        if "coverage" in values and values["coverage"][2] is not None and values["coverage"][2] < COVERAGE
    ]
    if short:
        wanted = f"{100 * COVERAGE:.0f} % wanted"
        yield f"Sets of answers hold the true class less often than the {wanted}: {', '.join(short)}."
    if performance["tuned_on_validation"] is None:
        yield "There are no outputs on validation images, so that no threshold and no temperature was chosen."
    if not any("scores" in each for each in performance["subgroups"].values()):
        yield "No subgroups of patients were judged: the manifest has no column for them, or only one value."
