"""One self-contained page about one run or session, read from its folder. Nothing else imports this package but the command line.

    facts.py     the run folder, and the data where it is still there
    tables.py    facts -> rows: plain dicts of numbers and words
    charts.py    rows -> Vega-Lite specifications
    pictures.py  examples -> thumbnails
    page.py      all of it -> HTML (page.html.jinja, page.css, page.js)
    sessions.py  the same of a labelling session (session.html.jinja)

It could be deleted in one commit.
"""

import warnings
from pathlib import Path

from svp.data.base import Dataset
from svp.errors import DataError, SvpWarning, require
from svp.files import replace, storage_errors
from svp.runs import STORE, SUMMARY

__all__ = ["write"]


def write(folder: str | Path, dataset: Dataset | None = None) -> Path:
    """Write report.html into the folder of a finished run, or of a session with its session.json, and return its path.

    dataset  what the run was made from; by default it is loaded again as the run's settings say. Where that fails the
             report is written all the same, without pictures, and says why
    The page needs no network and no other file. Raises DataError if the folder holds no finished run, or `dataset` is
    not the one that the run was made from; StorageError where the page cannot be written; MissingExtra without the extra
    `report`. About 1 MB, 900 kB of it the chart library.
    """
    for module in ("altair", "vl_convert"):
        require(module, "report")
    from svp.report import facts, page, sessions

    folder = Path(folder)
    if (folder / STORE).exists() and not (folder / SUMMARY).exists():
        raise DataError(f"{folder} is a session, and has no report yet; give: svp session report {folder}")
    if (folder / SUMMARY).exists():
        context, template = sessions.context(folder, dataset), "session.html.jinja"
    else:
        context, template = page.context(facts.read(folder, dataset)), "page.html.jinja"
    html = page.render(context, template)
    if context["missing"]:
        warnings.warn(
            f"{folder / 'report.html'} has no examples: the data could not be loaded again ({context['missing']})",
            SvpWarning,
            stacklevel=2,
        )
    with storage_errors(folder / "report.html", "copy the run elsewhere: its folder can be moved"):
        replace(folder / "report.html", html.encode())
    return folder / "report.html"
