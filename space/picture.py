"""The picture that a link shows in a chat: the text a page opens with, each letter's surprise behind it."""

from pathlib import Path

WIDTH, HEIGHT, MARGIN, LINE, LINES = 1200, 630, 70, 52, 8
INK, SOFT, PAPER, BAR = "#22201c", "#655f53", "#fffdf8", "#f2b885"
FULL_SURPRISE = 6  # nats drawn at full height, as on the page


def draw_card(opening: dict, title: str, path: Path) -> None:
    """Write a PNG of 1200 x 630. opening: {"text", "nats"}, as opening.opening gives it."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    serif = ImageFont.truetype(fonts / "DejaVuSerif.ttf", 34)
    bold = ImageFont.truetype(fonts / "DejaVuSerif-Bold.ttf", 40)
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, 40), title, INK, bold)
    x, y = MARGIN, 120
    for letter, nats in zip(opening["text"], opening["nats"], strict=True):
        width = serif.getlength(letter)
        if letter == "\n" or x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + LINE
        if y >= 120 + LINES * LINE:
            break
        if letter == "\n":
            continue
        pen.rectangle((x, y + 46 - 46 * min(1, (nats or 0) / FULL_SURPRISE), x + width, y + 46), BAR)
        pen.text((x, y), letter, INK, serif)
        x += width
    words = "A GPT-2 wrote this, letter by letter. The taller the bar, the less it expected the letter."
    pen.text((MARGIN, HEIGHT - 62), words, SOFT, ImageFont.truetype(fonts / "DejaVuSans.ttf", 23))
    image.quantize(64).save(path, optimize=True)
