"""The sheet of verdicts that `predict --grid` draws: a card for each face, rows with names, a legend; no torch."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from fakegan.data.sheets import MAP_COLOURS, NAMES, Picture, font, write_names
from fakegan.evaluation.verdicts import CALLS, IN_TRAINING, UNKNOWN, UNSURE, Row

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".pdf": "PDF"}  # by a file's ending
# Of frames, told apart by colour-blind people and in grey (Okabe & Ito); the verdict stands on each as a word, too.
COLOURS = dict(zip((*CALLS, UNSURE, UNKNOWN), ("#0072b2", "#d55e00", "#f0c33c", "#4d4d4d"), strict=True))
INK = {UNSURE: "black"}  # on these colours; on the others white
LEGEND = {UNSURE: "unsure (score in the grey band)", UNKNOWN: "unknown (unlike all of training)"}

WIDTH = 1400  # pixels of a sheet with many faces, about
MARGIN = 10  # pixels around everything
FRAME, NAME, TAG, BAR, LINE = 4, 16, 20, 22, 18  # pixels: of the frame around a face, and heights


@dataclass(frozen=True)
class Card:
    """One picture of the sheet."""

    row: Row  # what is said of it
    pictures: Sequence[Picture]  # (size, size, 3) each: the face, then what was made of it
    note: str = ""  # a few words below the last


@dataclass(frozen=True)
class Sheet:
    """How cards of one kind are drawn."""

    names: Sequence[str]  # of the pictures of every card
    threshold: float
    band: tuple[float, float]  # inside which a score is unsure
    explained: bool = False  # whether the last picture is a map

    def pages(self, cards: Sequence[Card], most: int | None = None) -> list[Image.Image]:
        """All cards, in rows, on as many pages as it takes where none may hold more than `most` rows."""
        side = _side(cards[0].pictures[0])
        columns = max(1, min(len(cards), (WIDTH - NAMES) // (side + 4 * FRAME)))
        bands = [cards[start : start + columns] for start in range(0, len(cards), columns)]
        most = most or len(bands)
        return [self._page(bands[start : start + most], side, columns) for start in range(0, len(bands), most)]

    def rows_of_a_page(self, cards: Sequence[Card]) -> int:
        """How many rows of cards fit a page of paper held upright."""
        return max(1, int(WIDTH * 2**0.5 - 6 * LINE) // self._height(_side(cards[0].pictures[0])))

    def _height(self, side: int) -> int:
        return NAME + TAG + 2 * FRAME + BAR + len(self.names) * (side + FRAME) + LINE

    def _page(self, bands: Sequence[Sequence[Card]], side: int, columns: int) -> Image.Image:
        step, legend = side + 4 * FRAME, self._legend()
        top = MARGIN + legend.height + MARGIN
        width = max(NAMES + columns * step, legend.width) + 2 * MARGIN
        page = Image.new("RGB", (width, top + len(bands) * self._height(side)), "white")
        page.paste(legend, (MARGIN, MARGIN))
        for i, band in enumerate(bands):
            y = top + i * self._height(side)
            self._name_rows(page, y, side)
            for j, card in enumerate(band):
                self._draw(page, card, MARGIN + NAMES + j * step, y, side)
        return page

    def _name_rows(self, page: Image.Image, y: int, side: int) -> None:
        below = [self._below(y, side, i) + side // 2 for i in range(1, len(self.names))]
        bar = y + NAME + TAG + side + 2 * FRAME + BAR // 2
        write_names(page, [*self.names, "P(fake)"], [y + NAME + TAG + side // 2, *below, bar], MARGIN)

    def _below(self, y: int, side: int, i: int) -> int:
        """The top of the i-th picture of a card whose top is y, for those below the bar."""
        return y + NAME + TAG + side + 2 * FRAME + BAR + (i - 1) * (side + FRAME)

    def _draw(self, page: Image.Image, card: Card, x: int, y: int, side: int) -> None:
        row, pen, right = card.row, ImageDraw.Draw(page), x + side + 2 * FRAME
        colour, ink = COLOURS[row.verdict], INK.get(row.verdict, "white")
        pen.text((x, y), shortened(Path(row.file).name, right - x), "black", font())
        y += NAME
        pen.rectangle((x, y, right - 1, y + TAG + side + 2 * FRAME - 1), colour)
        pen.text((x + FRAME, y + TAG // 2 + 1), f"{row.verdict} {row.score:.2f}", ink, font(14), anchor="lm")
        for i, letter in enumerate(badges(row)):
            _badge(pen, right - 11 - 18 * i, y + TAG // 2 + 1, letter)
        for i, picture in enumerate(card.pictures):
            place = y + TAG + FRAME if i == 0 else self._below(y - NAME, side, i)
            page.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (x + FRAME, place))
        self._bar(pen, x + FRAME, y + TAG + side + 2 * FRAME + BAR // 2, side, row.score or 0.0)
        last = self._below(y - NAME, side, len(card.pictures))
        pen.text((x + FRAME, last), card.note, "black", font())

    def _bar(self, pen: ImageDraw.ImageDraw, x: int, y: int, side: int, score: float) -> None:
        """P(fake) from 0 at x to 1: the unsure band, the threshold as a line, the score as a dot."""
        low, at, high, here = (round(x + side * value) for value in (self.band[0], self.threshold, self.band[1], score))
        pen.rectangle((x, y - 3, x + side, y + 3), "white", "#808080")
        pen.rectangle((low, y - 3, high, y + 3), "#a8a8a8")
        pen.line((at, y - 8, at, y + 8), "black", 2)
        pen.ellipse((here - 5, y - 5, here + 5, y + 5), COLOURS[CALLS[score >= self.threshold]], "white")

    def _legend(self) -> Image.Image:
        """What colours, letters, bar and map mean."""
        low, high = self.band
        band = f", grey where a verdict is unsure ({low:.3f} to {high:.3f})" if low < high else ""
        lines = [
            f"Bar: P(fake) from 0 to 1{band}. Dot: the score. Line: called fake from {self.threshold:.3f}.",
            "Badges:  ! has a warning   T took part in training, so that its score proves nothing",
        ]
        rows: list[list[tuple[str | tuple[int, int, int], str]]]
        rows = [[(colour, LEGEND.get(verdict, verdict)) for verdict, colour in COLOURS.items()]]
        if self.explained:
            lines.append(
                "Explanation: what blurring a place takes from the log odds. Full colour: the number below it."
            )
            rows.append([(MAP_COLOURS[0], "explanation: speaks for fake"), (MAP_COLOURS[1], "speaks for real")])
        legend = Image.new("RGB", (640, LINE * (len(rows) + len(lines))), "white")
        pen = ImageDraw.Draw(legend)
        for i, row in enumerate(rows):
            x = 0
            for colour, text in row:
                pen.rectangle((x, i * LINE + 2, x + 12, i * LINE + 14), colour)
                pen.text((x + 18, i * LINE + 8), text, "black", font(), anchor="lm")
                x += 18 + int(font().getlength(text)) + 16
        for i, text in enumerate(lines, start=len(rows)):
            pen.text((0, i * LINE + 8), text, "black", font(), anchor="lm")
        return legend


def content(pages: Sequence[Image.Image], format: str) -> bytes:  # PNG, JPEG or PDF
    """The pages as a file; formats other than PDF hold the first."""
    out = io.BytesIO()
    more = {"save_all": True, "append_images": pages[1:], "resolution": 150} if format == "PDF" else {}
    pages[0].save(out, format, **({"quality": 95, "subsampling": 0} if format != "PNG" else {}), **more)
    return out.getvalue()


def badges(row: Row) -> str:
    """The letters of a row's badges, the last one leftmost: T took part in training, ! has another warning."""
    warnings = row.warning.split("; ") if row.warning else []
    known = IN_TRAINING in warnings
    return "T" * known + "!" * (len(warnings) > known)


def shortened(name: str, width: int) -> str:
    """A name of at most `width` pixels: the middle of a longer one is left out.

    The font has the letters of ASCII: accents are dropped, and other letters are shown as "?".
    """
    letters = (c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    text = "".join(c if " " <= c <= "~" else "?" for c in letters)
    whole, kept = text, len(text)
    while kept > 2 and font().getlength(text) > width:
        kept -= 1
        text = f"{whole[: kept - kept // 2]}…{whole[len(whole) - kept // 2 :]}"
    return text


def _side(face: Picture) -> int:
    """Pixels of a face on the sheet: twice its size, but large faces as they are."""
    return len(face) * (2 if len(face) <= 128 else 1)


def _badge(pen: ImageDraw.ImageDraw, x: int, y: int, letter: str) -> None:
    pen.ellipse((x - 8, y - 8, x + 8, y + 8), "white", "black")
    pen.text((x, y), letter, "black", font(13), anchor="mm")
