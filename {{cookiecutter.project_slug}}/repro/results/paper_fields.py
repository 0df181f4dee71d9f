"""What conferences ask of a paper and only its author knows: the names in [tool.repro.paper].

Each is a text in pyproject.toml, which is no condition of a training: it can be written after the
results were recorded. What is not stated is `TODO(author)` in the papers for reviewers, and
`python -m repro doctor` lists it. Nothing is made up for it, and whoever publishes no paper leaves
the table out.
"""

from collections.abc import Mapping
from typing import NamedTuple


class PaperField(NamedTuple):
    """A fact that is asked for: what to write, and who asks; an optional one is no TODO."""

    asks: str
    asked_by: str
    is_optional: bool = False


# NeurIPS: the numbers of its paper checklist. ACL: those of the responsible NLP checklist. MLR: the
# section of the Machine Learning Reproducibility Checklist, version 2.0.
PAPER_FIELDS = {
    "title": PaperField("title of the paper, if CITATION.cff has another one", "", True),
    "reference": PaperField(
        "where the paper is: its DOI as an address, arXiv:NUMBER, or a text such as Under review "
        "at NAME",
        "CODECHECK",
    ),
    "metrics": PaperField(
        "what each metric is, by its formula or a reference", "NeurIPS 6 · MLR results"
    ),
    "hyperparameter_search": PaperField(
        "how the hyperparameters were chosen: ranges, method, number of trials, by which metric "
        "on which split",
        "NeurIPS 6 · ACL C2 · MLR results",
    ),
    "total_compute": PaperField(
        "compute of the whole project, with failed, preliminary and search runs",
        "NeurIPS 8 · ACL C1",
    ),
    "data_licence": PaperField(
        "licence or terms of each data set, its version, and whom to cite",
        "NeurIPS 12 · ACL B1, B2",
    ),
    "data_collection": PaperField(
        "how the data were collected, what they cover, and what was left out or changed before "
        "this project reads them",
        "NeurIPS 13 · ACL B5 · MLR data",
    ),
    "data_consent": PaperField(
        "people in the data: consent, personal or offensive content",
        "NeurIPS 9, 13 · ACL B4",
    ),
    "intended_use": PaperField(
        "what the data and models of others are meant for, and what this work is meant for",
        "ACL B3",
    ),
    "other_assets": PaperField(
        "code, models and weights of others besides the locked packages: version, licence, whom "
        "to cite",
        "NeurIPS 12 · ACL B1, B2",
    ),
    "human_subjects": PaperField(
        "work with people: instructions, payment, risks, approval by a review board",
        "NeurIPS 14, 15 · ACL D",
    ),
    "theory": PaperField(
        "where the assumptions and proofs of theoretical results are", "NeurIPS 3 · MLR theory"
    ),
    "limitations": PaperField("limitations of the work", "NeurIPS 2 · ACL A1"),
    "broader_impact": PaperField(
        "positive and negative impacts on society, and risks", "NeurIPS 10 · ACL A2"
    ),
    "safeguards": PaperField(
        "safeguards for releasing data or models that could be misused", "NeurIPS 11"
    ),
    "ethics": PaperField("how the work conforms to the venue's code of ethics", "NeurIPS 9"),
    "language_models": PaperField(
        "use of language models and AI assistants, in the method or in writing",
        "NeurIPS 16 · ACL E",
    ),
}


def open_fields(stated: Mapping[str, str]) -> dict[str, PaperField]:
    """Return what is asked for and not stated in [tool.repro.paper], by name."""
    return {
        name: field
        for name, field in PAPER_FIELDS.items()
        if not field.is_optional and name not in stated
    }
