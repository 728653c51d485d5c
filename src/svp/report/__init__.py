"""One self-contained page about one run, read from its folder. Nothing else imports this package but the command line.

    facts.py     the run folder, and the data where it is still there
    tables.py    facts -> rows: plain dicts of numbers and words
    charts.py    rows -> Vega-Lite specifications
    pictures.py  examples -> thumbnails
    page.py      all of it -> HTML (page.html.jinja, page.css, page.js)

It could be deleted in one commit.
"""

from pathlib import Path

from svp.data.base import Dataset
from svp.errors import require
from svp.files import write_bytes

__all__ = ["write"]


def write(folder: str | Path, dataset: Dataset | None = None) -> Path:
    """Write report.html into a finished run's folder and return its path.

    dataset  what the run was made from; by default it is loaded again as the run's settings say. Where that fails the
             report is written all the same, without pictures, and says why
    The page needs no network and no other file. Raises DataError if the folder holds no finished run, or `dataset` is
    not the one that the run was made from; MissingExtra without the extra `report`. About 1 MB, 900 kB of it the chart
    library.
    """
    for module in ("altair", "vl_convert"):
        require(module, "report")
    from svp.report import facts, page

    path = Path(folder) / "report.html"
    write_bytes(path, page.render(facts.read(Path(folder), dataset)).encode())
    return path
