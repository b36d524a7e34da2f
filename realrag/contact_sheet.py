"""A picture of answers: one row a prompt, its references beside it, ranked, with score and credit."""

from __future__ import annotations

import textwrap

from .references import References, letterbox

CELL, TEXT, GAP, LEFT = 200, 56, 12, 230
INK, PAPER, FAINT = (30, 30, 30), (250, 250, 248), (110, 110, 110)


def fonts() -> tuple:
    """A small and a large one."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(12), ImageFont.load_default(17)
    except TypeError:  # Pillow before 10.1 knows one size
        return ImageFont.load_default(), ImageFont.load_default()


def contact_sheet(answers: list[References], columns: int):
    """PIL RGB image; `columns` references a row."""
    from PIL import Image, ImageDraw

    small, large = fonts()
    height = GAP + len(answers) * (CELL + TEXT + GAP)
    sheet = Image.new("RGB", (LEFT + columns * (CELL + GAP), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, answer in enumerate(answers):
        top = GAP + row * (CELL + TEXT + GAP)
        draw.multiline_text((GAP, top), textwrap.fill(answer.query, 24), INK, large)
        if answer.note:
            draw.multiline_text((GAP, top + CELL // 2), textwrap.fill(answer.note, 34), FAINT, small)
        for column, item in enumerate(answer.items[:columns]):
            left = LEFT + column * (CELL + GAP)
            sheet.paste(letterbox(item.image, (CELL, CELL)), (left, top))
            lines = f"{item.score:.2f}  {item.caption or item.file}", item.author, item.licence or "licence not stated"
            text = "\n".join(line if len(line) < 36 else line[:34] + "..." for line in lines if line)
            draw.multiline_text((left, top + CELL + 4), text, FAINT, small)
    return sheet
