"""Make the papers for reviewers: an artifact appendix, the facts of checklists, codecheck.yml.

They are forms of an archive. Promises the same bytes for the same contents, and that the texts of
authors come out letter for letter.
"""

from collections.abc import Mapping

from repro.publishing.contents import Contents
from repro.publishing.reviewers.appendix import APPENDIX, write_appendix
from repro.publishing.reviewers.codecheck import CODECHECK, write_codecheck
from repro.publishing.reviewers.facts_asked import FACTS_ASKED, write_facts_asked
from repro.publishing.reviewers.paper_facts import gather


def papers(contents: Contents) -> Mapping[str, bytes]:
    """Return the papers of an archive with these contents, by their names in it."""
    facts = gather(contents)
    return {
        APPENDIX: write_appendix(facts),
        FACTS_ASKED: write_facts_asked(facts),
        CODECHECK: write_codecheck(facts),
    }
