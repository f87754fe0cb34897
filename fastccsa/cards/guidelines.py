"""The items of TRIPOD+AI (2024) and CLAIM 2024: which of them a run's records answer, and what its authors must write.

The topics are given in our own words; the guidelines' texts are in

- Collins et al., TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use regression or
  machine learning methods, BMJ 385, e078378, 2024;
- Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update, Radiology: Artificial
  Intelligence 6 (4), e240300, 2024.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

State = Literal["filled", "partly", "open"]


@dataclass(frozen=True)
class Item:
    """An item of a guideline.

    Attributes:
        number: its number there.
        topic: what it asks for.
        sections: sections of the card that answer it; none if a run's records cannot.
        write: what the authors must write; "" if the sections are the whole answer.
    """

    number: str
    topic: str
    sections: tuple[str, ...] = ()
    write: str = ""


@dataclass(frozen=True)
class Entry:
    """What a card says about an item of a guideline.

    Attributes:
        number, topic: the item.
        state: filled by the card, in part, or left to the authors.
        sections: the sections of the card that answer it.
        write: what the authors must write; "" if it is filled.
    """

    number: str
    topic: str
    state: State
    sections: tuple[str, ...]
    write: str


def checklist(guideline: str, there: Collection[str]) -> list[Entry]:
    """Return the items of one of `GUIDELINES` as answered by a card that has the sections ``there``."""
    entries = []
    for item in GUIDELINES[guideline]:
        sections = tuple(name for name in item.sections if name in there)
        missing = [name for name in item.sections if name not in there]
        write = " ".join([*(f'The run has no record for "{name}".' for name in missing), item.write]).strip()
        state: State = "open" if not sections else "partly" if write else "filled"
        entries.append(Entry(item.number, item.topic, state, sections, write))
    return entries


_MODEL, _DATA, _TRAINING, _VERSIONS = "Model", "Data", "Training", "Versions"
_SCORES, _DECISIONS, _SUBGROUPS, _LIMITS = "Scores", "Calibration and decisions", "Subgroups", "Limits"

_TRIPOD = (
    Item("1", "title", (), "Name the study as development or evaluation of a model, with population and outcome."),
    Item("2", "abstract", (), "Write the abstract by the guideline's own list for abstracts."),
    Item("3a", "background", (), "Explain the medical context, why a model is needed, and which ones exist."),
    Item("3b", "target population and use", (), "Name the patients, the place in care, and who is to use the model."),
    Item("3c", "health inequalities", (), "Describe known inequalities between groups of the target population."),
    Item("4", "objectives", (), "State the aims, and whether they are development, evaluation or both."),
    Item("5a", "sources of data", (_DATA,), "Say where the collections come from, and how they represent the target."),
    Item("5b", "dates", (), "Give the dates in which the images were taken."),
    Item("6a", "setting", (), "Name the kind of care, the number of centres and their places."),
    Item("6b", "eligibility", (_DATA,), "Give the collections' own criteria of inclusion and exclusion."),
    Item("6c", "treatments", (), "Describe treatments that the patients received, if they matter."),
    Item("7", "data preparation", (_DATA, _MODEL), "Say whether quality was checked equally for all patients."),
    Item("8a", "outcome", (_DATA,), "Define each class: how, when and by whom it was found, such as by histology."),
    Item("8b", "outcome assessors", (), "Give the qualifications of those who assigned subjective labels."),
    Item("8c", "blinding of the outcome", (), "Say what the assessors knew when they labelled."),
    Item("9a", "choice of predictors", (_MODEL,), "Explain why images alone are used."),
    Item("9b", "definition of predictors", (_MODEL,), "Describe devices and settings with which images are taken."),
    Item("9c", "predictor assessors", (), "Not usual for images; describe who takes them if that needs skill."),
    Item("10", "sample size", (_DATA,), "Explain how the size was decided, and whether it suffices."),
    Item("11", "missing data", (_DATA, _TRAINING), "Explain how images without a label or group were handled."),
    Item("12a", "use of the data", (_DATA,)),
    Item("12b", "handling of predictors", (_MODEL, _TRAINING)),
    Item("12c", "type of model and its building", (_MODEL, _TRAINING), "Give the reasons for the type of model."),
    Item("12d", "heterogeneity between clusters", (_SCORES,)),
    Item("12e", "measures of performance", (_SCORES, _DECISIONS)),
    Item("12f", "model updating", (), "Say whether the model was recalibrated or updated after this evaluation."),
    Item("12g", "computing of predictions", (_MODEL, _VERSIONS)),
    Item("13", "class imbalance", (_TRAINING, _DECISIONS)),
    Item("14", "fairness", (_SUBGROUPS,), "Explain how fairness was approached, and why these groups."),
    Item("15", "output of the model", (_MODEL, _DECISIONS), "Explain the choice of thresholds for use in practice."),
    Item("16", "training against evaluation", (_DATA, _SCORES), "Name differences in setting, criteria or outcome."),
    Item("17", "ethical approval", (), "Name the committee and the consent, or why none is needed."),
    Item("18a", "funding", (), "Name the funders and their role."),
    Item("18b", "conflicts of interest", (), "Declare them for every author."),
    Item("18c", "protocol", (), "Say where the protocol is, or that there is none."),
    Item("18d", "registration", (), "Give the register and the number, or say that there is none."),
    Item("18e", "data sharing", (), "Say where the images and this manifest can be had."),
    Item("18f", "code sharing", (_VERSIONS,), "Say where the authors' own code and this model can be had."),
    Item("19", "patients and public", (), "Say how patients or the public were involved, or that they were not."),
    Item("20a", "flow of participants", (_DATA,), "Add the number of patients, where it is known."),
    Item("20b", "characteristics", (_DATA, _SUBGROUPS), "Describe the patients overall and by collection."),
    Item("20c", "development against evaluation data", (_DATA,)),
    Item("21", "participants and events", (_DATA,)),
    Item("22", "specification of the model", (_MODEL, _VERSIONS), "Say where the weights are, and on which terms."),
    Item("23a", "performance with intervals", (_SCORES, _SUBGROUPS)),
    Item("23b", "heterogeneity of the performance", (_SCORES,)),
    Item("24", "results of updating", (), "Report them, if the model was updated."),
    Item("25", "interpretation", (), "Discuss the results, with fairness and earlier studies."),
    Item("26", "limitations", (_LIMITS,), "Add limits of the study that the records do not show."),
    Item("27a", "poor or missing input", (), "Say how poor images are to be recognised and handled in use."),
    Item("27b", "interaction of users", (), "Say what users must do and know."),
    Item("27c", "next steps", (), "Name the research that is still needed before use."),
)

_CLAIM = (
    Item("1", "title names the AI method", (), "Name the kind of AI method in the title or abstract."),
    Item("2", "structured abstract", (), "Write it."),
    Item("3", "background, use and role", (), "Explain the background, the intended use and the clinical role."),
    Item("4", "aims and hypotheses", (), "State them."),
    Item("5", "prospective or retrospective", (), "Say which; public collections are retrospective."),
    Item("6", "goal of the study", (), "State it, such as feasibility or non-inferiority."),
    Item("7", "sources of data", (_DATA,), "Add when and where the images were taken, and the ethical approval."),
    Item("8", "inclusion and exclusion", (_DATA,), "Add the collections' own criteria."),
    Item("9", "preprocessing", (_MODEL, _TRAINING)),
    Item("10", "selection of subsets", (_DATA, _TRAINING)),
    Item("11", "de-identification", (), "Describe how the collections were de-identified."),
    Item("12", "missing data", (_DATA, _TRAINING), "Explain how images without a label or group were handled."),
    Item("13", "image acquisition", (), "Describe devices and protocols."),
    Item("14", "reference standard", (), "Define it for each class."),
    Item("15", "choice of the reference standard", (), "Give its rationale and its limits."),
    Item("16", "source of annotations", (), "Say who annotated, and their qualifications."),
    Item("17", "annotation of the test set", (), "Describe it, with tools and rules."),
    Item("18", "variability of raters", (), "Give it, and how disagreements were settled."),
    Item("19", "assignment to partitions", (_DATA,)),
    Item("20", "level of disjoint partitions", (_DATA,), "Say whether the manifest's groups are patients or lesions."),
    Item("21", "intended sample size", (_DATA,), "Explain how it was determined."),
    Item("22", "description of the model", (_MODEL,)),
    Item("23", "software", (_VERSIONS,)),
    Item("24", "initial weights", (_TRAINING,)),
    Item("25", "details of the training", (_TRAINING,)),
    Item("26", "selection of the final model", (_TRAINING,)),
    Item("27", "ensembles", (_TRAINING,)),
    Item("28", "metrics", (_SCORES, _DECISIONS)),
    Item("29", "significance and uncertainty", (_SCORES,)),
    Item("30", "robustness", (_SCORES,), "Add sensitivity analyses of your own; `fastccsa compare` has more metrics."),
    Item("31", "explainability", (), "Describe it; the report page shows Grad-CAM."),
    Item("32", "internal data", (_SCORES,)),
    Item("33", "external data", (_SCORES,), "Say which of the domains are external to the training data."),
    Item("34", "registration of a trial", (), "Give the number, if it is a trial."),
    Item("35", "numbers included and excluded", (_DATA,), "Add the number of patients, where it is known."),
    Item("36", "characteristics by partition", (_DATA,), "Describe the patients by partition."),
    Item("37", "performance with uncertainty", (_SCORES, _SUBGROUPS)),
    Item("38", "diagnostic accuracy with precision", (_DECISIONS,)),
    Item(
        "39",
        "failures",
        (),
        "Analyse wrong answers; the report page shows the most certain ones.",
    ),
    Item("40", "limitations", (_LIMITS,), "Add limits of the study that the records do not show."),
    Item("41", "implications for practice", (), "Discuss them, with the intended use."),
    Item("42", "protocol and technical details", (_TRAINING, _VERSIONS), "Say where the protocol is."),
    Item("43", "availability", (), "Say where code, model and data can be had."),
    Item("44", "funding", (), "Name the funders and their role."),
)

GUIDELINES = {"TRIPOD+AI": _TRIPOD, "CLAIM 2024": _CLAIM}
