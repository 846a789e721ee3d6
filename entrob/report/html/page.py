"""What a page is made of, and how it becomes one file."""

import base64
import dataclasses
import gzip
import html
import importlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pandas as pd
import PIL.Image

from entrob.errors import EntrobError
from entrob.persistence import store

LIBRARIES = ("altair", "itables", "jinja2", "vl_convert")
"""What the extra ``[html]`` brings."""

LARGE = 100_000
"""A table with more bytes than this as CSV is downloaded compressed."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification.

    Attributes:
      spec: as from altair's ``to_dict``.
      title: above it.
      note: below it.
      fixed: it has a width of its own, and is scrolled where that does not fit.
    """

    spec: Mapping[str, Any]
    title: str = ""
    note: str = ""
    fixed: bool = False
    kind: ClassVar[str] = "chart"


@dataclasses.dataclass(frozen=True)
class Slid:
    """Charts with a slider that sets their parameter ``place`` to 0, 1, ...

    Attributes:
      charts: their specifications.
      title: above them.
      places: what each place of the slider is called.
      what: what the slider chooses.
      start: where it stands at first.
    """

    charts: tuple[Chart, ...]
    title: str
    places: tuple[str, ...]
    what: str
    start: int = 0
    kind: ClassVar[str] = "slid"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that can be sorted and searched; `html` is itables'."""

    html: str
    title: str = ""
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image in the page; `source` is a data URI."""

    source: str
    title: str = ""
    note: str = ""
    kind: ClassVar[str] = "picture"


@dataclasses.dataclass(frozen=True)
class Text:
    """Paragraphs and lists, see `paragraphs`; `style` may be "warnings", "lead" or "code"."""

    html: str
    style: str = ""
    kind: ClassVar[str] = "text"


@dataclasses.dataclass(frozen=True)
class Legend:
    """Names with their colors and the signs they are drawn with, for the charts below it."""

    entries: tuple[tuple[str, str, str], ...]
    kind: ClassVar[str] = "legend"


@dataclasses.dataclass(frozen=True)
class Group:
    """Blocks side by side where there is room."""

    blocks: tuple[Any, ...]
    kind: ClassVar[str] = "group"


@dataclasses.dataclass(frozen=True)
class Card:
    """What opens at a click: a method.

    Attributes:
      title: its name.
      marks: a few words beside it.
      blocks: what is inside.
    """

    title: str
    marks: tuple[str, ...]
    blocks: tuple[Any, ...]
    kind: ClassVar[str] = "card"


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with blocks below it."""

    title: str
    blocks: tuple[Any, ...]

    @property
    def anchor(self) -> str:
        """Its address in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
      title: of it.
      lead: one sentence that says what came out.
      badges: facts with their values.
      sections: what follows.
      command: what makes the page again.
    """

    title: str
    lead: str
    badges: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    command: str


def library(name: str) -> ModuleType:
    """One of `LIBRARIES`; raises `EntrobError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EntrobError(
            f"a page needs {name}, which is not installed: pip install 'entrob[html]'"
        ) from None


def check_libraries() -> None:
    """Raises `EntrobError` if one of `LIBRARIES` is not installed."""
    for name in LIBRARIES:
        library(name)


def write_page(page: Page, path: Path) -> Path:
    """Write a page as one file, whole or not at all, and return its path.

    Raises:
      EntrobError: a library is missing, or the file cannot be written.
    """
    check_libraries()
    jinja2 = library("jinja2")
    loader = jinja2.PackageLoader("entrob.report.html")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    specs: list[Mapping[str, Any]] = []

    def number(chart: Chart) -> int:
        specs.append(chart.spec)
        return len(specs) - 1

    safe = library("markupsafe").Markup
    environment.filters["safe_html"] = safe
    source = lambda name: safe(loader.get_source(environment, name)[0])
    body = environment.get_template("page.html.j2").render(
        page=page, number=number, style=source("style.css")
    )
    scripts = environment.get_template("scripts.html.j2").render(
        bundle=safe(_closed(library("vl_convert").javascript_bundle())),
        tables=safe(_table_bundle()),
        specs=safe(_json(specs)),
        script=source("page.js"),
    )
    text = body.replace("<!-- scripts -->", scripts)
    store.write_bytes(path, text.encode())
    return path


def _closed(script: str) -> str:
    """A program that may stand in a script element: no string in it ends that."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE)


def _json(value: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _table_bundle() -> str:
    """The scripts and styles of all tables."""
    folder = Path(str(library("itables").__file__)).parent
    module = importlib.import_module("itables.javascript")
    return module.generate_init_offline_itables_html(folder / "html" / "dt_bundle.js")


def table(
    frame: pd.DataFrame,
    name: str,
    *,
    filters: Iterable[str] = (),
    title: str = "",
    note: str = "",
    rows: int = 25,
    digits: int = 3,
) -> Table:
    """A frame as a table that can be sorted and searched.

    Args:
      frame: numbers stay numbers, so that they are sorted as such, and categories stay in their
        order; NaN is an empty cell.
      name: unique in the page.
      filters: columns whose values can be chosen from a list.
      title, note: above and below.
      rows: per page.
      digits: after the point.
    """
    columns = list(frame)
    shown = frame.copy()
    for column in columns:
        if pd.api.types.is_float_dtype(shown[column]):
            values = shown[column].astype(float).round(digits)
            # Magnitudes and ranks are whole numbers, whatever they are stored as.
            whole = values.notna().any() and (values.dropna() % 1 == 0).all()
            shown[column] = values.astype("Int64") if whole else values
        elif isinstance(shown[column].dtype, pd.CategoricalDtype):
            continue  # sorted in the order of its categories
        elif not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = shown[column].astype(object).where(shown[column].notna(), "–")
    lists = [columns.index(column) for column in filters]
    options: dict[str, Any] = {
        "connected": False,
        "table_id": f"table-{name}",
        "showIndex": False,
        "maxBytes": 0,
        "classes": "display compact",
        "style": "width:100%;margin:0",
        "order": [],
        "pageLength": rows,
        "lengthMenu": sorted({10, 25, 100, rows}),
        "autoWidth": False,
        "text_in_header_can_be_selected": False,
    }
    if lists:
        options["columnDefs"] = [{"targets": lists, "columnControl": ["order", ["searchList"]]}]
        others = [i for i in range(len(columns)) if i not in lists]
        options["columnDefs"] += [{"targets": others, "columnControl": ["order"]}]
        options["ordering"] = {"indicators": False, "handler": True}
    with pd.option_context("display.float_format", f"{{:z.{digits}f}}".format):
        text = library("itables").to_html_datatable(shown, **options)
    for missing in ("NaN", "<NA>"):
        text = text.replace(f'\\"{missing}\\"', '\\"–\\"')
    return Table(text, title, note)


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them; `kind` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(path: Path, title: str = "", note: str = "") -> Picture:
    """A PNG file as a part of the page, in 128 colors, which a figure's lines do with."""
    sink = io.BytesIO()
    with PIL.Image.open(path) as image:
        image.convert("RGB").quantize(128).save(sink, "PNG", optimize=True)
    return Picture(data_uri(sink.getvalue(), "image/png"), title, note)


def downloads(frames: Mapping[str, pd.DataFrame]) -> Text:
    """Links that save each table as CSV, with all digits; large ones compressed."""
    links = []
    for name, frame in frames.items():
        data, suffix, kind = frame.to_csv(index=False).encode(), "csv", "text/csv"
        if len(data) > LARGE:
            data, suffix, kind = gzip.compress(data, mtime=0), "csv.gz", "application/gzip"
        size = f"{max(1, round(len(data) / 1000)):,} kB"
        links.append(
            f'<a download="{html.escape(name)}.{suffix}" href="{data_uri(data, kind)}">'
            f"{html.escape(name)}.{suffix}</a> <small>{len(frame):,} rows, {size}</small>"
        )
    return Text("<ul>" + "".join(f"<li>{link}</li>" for link in links) + "</ul>", "downloads")


def paragraphs(texts: Iterable[str]) -> str:
    """Sentences as HTML: ``**bold**``, lines that begin with "- " as a list; all else escaped."""
    parts = []
    for text in texts:
        lines: list[str] = []
        items: list[str] = []
        for line in text.split("\n"):
            (items if line.startswith("- ") else lines).append(line.removeprefix("- "))
        parts += [f"<p>{_inline(' '.join(lines).strip())}</p>"] if any(lines) else []
        parts += ["<ul>" + "".join(f"<li>{_inline(x)}</li>" for x in items) + "</ul>"] * bool(items)
    return "".join(parts)


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def code(text: str) -> Text:
    """Text as it stands."""
    return Text(f"<pre>{html.escape(text)}</pre>", "code")
