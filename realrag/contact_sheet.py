"""Contact sheets: rows of pictures with titles, captions and frames, and tiles without a gap."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .references import NOT_STATED, References, letterbox

if TYPE_CHECKING:
    from PIL import Image

Color = tuple[int, int, int]
INK, PAPER, FAINT = (30, 30, 30), (250, 250, 248), (110, 110, 110)
BORDER = 3  # pixels of a frame
LINE = 18  # pixels of a heading, or of a title above its row


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet. `caption` is printed below it, `frame` is the color of its border."""

    image: Image.Image
    caption: str = ""
    frame: Color | None = None


@dataclass(frozen=True)
class Row:
    """The pictures of one row. `title` stands beside them or above them; `note` stands small below a title beside."""

    cells: Sequence[Cell]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Layout:
    """Sizes of a sheet in pixels."""

    cell: int = 200  # side of a picture: four of them and the titles fill a laptop's screen
    left: int = 230  # width of the titles beside the rows; 0 puts them above
    caption: int = 56  # height below a picture: three lines
    gap: int = 12


def sheet(rows: Sequence[Row], layout: Layout = Layout(), headings: Sequence[str] = ()) -> Image.Image:
    """An RGB picture of the rows, as wide as the longest. headings: one line above each column."""
    from PIL import Image, ImageDraw

    small, large = fonts()
    step_x, above = layout.cell + layout.gap, LINE if not layout.left and any(row.title for row in rows) else 0
    step_y, top = above + layout.cell + layout.caption + layout.gap, layout.gap + (LINE if headings else 0)
    columns = max([len(headings), *(len(row.cells) for row in rows)], default=0)
    left = layout.left or layout.gap
    picture = Image.new("RGB", (left + columns * step_x, top + len(rows) * step_y), PAPER)
    draw = ImageDraw.Draw(picture)
    for column, heading in enumerate(headings):
        draw.text((left + column * step_x, layout.gap // 2), heading[: layout.cell // 6], INK, small)
    for number, row in enumerate(rows):
        y = top + number * step_y
        if layout.left:
            title = textwrap.fill(row.title, max(1, layout.left // 9))
            draw.multiline_text((layout.gap, y), title, INK, large if layout.left > 150 else small)
            if row.note:
                note = textwrap.fill(row.note, max(1, layout.left // 7))
                draw.multiline_text((layout.gap, y + layout.cell // 2), note, FAINT, small)
        else:
            draw.text((left, y), row.title, INK, small)
        for column, cell in enumerate(row.cells):
            x, y_cell = left + column * step_x, y + above
            if cell.frame:
                box = x - BORDER, y_cell - BORDER, x + layout.cell + BORDER - 1, y_cell + layout.cell + BORDER - 1
                draw.rectangle(box, cell.frame)
            picture.paste(letterbox(cell.image, (layout.cell, layout.cell)), (x, y_cell))
            draw.multiline_text((x, y_cell + layout.cell + 4), cell.caption, FAINT, small)
    return picture


def contact_sheet(answers: Sequence[References], columns: int) -> Image.Image:
    """One row per prompt: its first `columns` references with score and credit."""
    rows = []
    for answer in answers:
        cells = []
        for item in answer.items[:columns]:
            score = f"{item.score:.2f}" if item.found == "by look" else item.found
            license = item.licence or NOT_STATED * answer.licensed
            lines = f"{score}  {item.caption or item.file}", item.author, license
            caption = "\n".join(line if len(line) < 36 else line[:34] + "..." for line in lines if line)
            cells.append(Cell(item.image, caption))
        rows.append(Row(cells, answer.query, answer.note))
    return sheet(rows)


def tiled(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size without gaps, row by row. Missing ones in the last row are white."""
    from PIL import Image

    width, height = images[0].size
    columns = min(columns, len(images))
    picture = Image.new("RGB", (width * columns, height * -(-len(images) // columns)), "white")
    for number, image in enumerate(images):
        picture.paste(image, (number % columns * width, number // columns * height))
    return picture


def fonts() -> tuple:
    """A small and a large font."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(12), ImageFont.load_default(17)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default(), ImageFont.load_default()
