"""Opens reports in a headless Chromium, and shows what they ask for, what they complain of, and how large they are.

    python scripts/check_report.py REPORT.html... [--chromium PROGRAM] [--pictures FOLDER]              (playwright from PyPI)

Each page is opened at the width of a desktop and of a phone, light and dark, and printed on A4 by somebody who likes it dark. Exits with 1
if a page makes a request besides the one for itself, writes to the console, is wider than the window or the paper, has 5 MB or more, or
prints on another ground than white, on more than 16 sheets or without what is folded. With --pictures, leaves a picture of each and the PDF.
"""
import argparse
import re
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = {"desktop": 1280, "phone": 390}
MOST_BYTES = 5_000_000
MOST_SHEETS = 16
MARGIN = 12  # mm, on every side
A4_WIDTH = int((210 - 2 * MARGIN) / 25.4 * 96)  # what is left of it, in CSS pixels


def opened(browser, page, width, scheme, picture):
    """What is wrong with a page in a window."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong = []
    tab.on("console", lambda message: wrong.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    tab.on("request", lambda request: wrong.append(f"request: {request.url[:80]}")
           if request.url != page.as_uri() and not request.url.startswith("data:") else None)
    tab.goto(page.as_uri(), wait_until="networkidle")
    wide = tab.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        wrong.append(f"{wide} pixels wide in a window of {width}")
    broken = tab.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth == 0).length")
    if broken:
        wrong.append(f"{broken} pictures that are none")
    if picture:
        tab.screenshot(path=picture, full_page=True)
    tab.close()
    return wrong


def printed(browser, page, pdf):
    """What is wrong with a page on paper, and how many sheets it takes."""
    tab = browser.new_page(viewport={"width": A4_WIDTH, "height": 1000}, color_scheme="dark")
    tab.goto(page.as_uri(), wait_until="networkidle")
    tab.emulate_media(media="print", color_scheme="dark")
    wrong = []
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    if ground != "rgb(255, 255, 255)":
        wrong.append(f"a ground of {ground}")
    # What a box hides of its content is not seen in the width of the page: each part is asked.
    wide = tab.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.ownerSVGElement && "
        f"e.getBoundingClientRect().right > {A4_WIDTH} + 1).map(e => e.tagName)")
    if wide:
        wrong.append(f"beyond the paper: {', '.join(sorted(set(wide)))}")
    folded = tab.evaluate("[...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility()).length")
    if folded:
        wrong.append(f"{folded} parts that stay folded")
    margin = dict.fromkeys(["top", "right", "bottom", "left"], f"{MARGIN}mm")
    sheets = len(re.findall(rb"/Type\s*/Page\b(?!s)", tab.pdf(path=pdf, format="A4", margin=margin, print_background=True)))
    if not 0 < sheets <= MOST_SHEETS:
        wrong.append("too many sheets")
    tab.close()
    return wrong, sheets


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    failed = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        for page in arguments.pages:
            size = page.stat().st_size
            print(f"{page}: {size / 1e6:.2f} MB")
            failed |= size >= MOST_BYTES
            for name, width in WIDTHS.items():
                for scheme in ("light", "dark"):
                    picture = arguments.pictures and arguments.pictures / f"{page.stem}-{name}-{scheme}.png"
                    wrong = opened(browser, page.resolve(), width, scheme, picture)
                    print(f"  {name}, {scheme}: {'; '.join(wrong) or 'nothing wrong'}")
                    failed |= bool(wrong)
            pdf = arguments.pictures and arguments.pictures / f"{page.stem}.pdf"
            wrong, sheets = printed(browser, page.resolve(), pdf)
            print(f"  paper, {sheets} sheets: {'; '.join(wrong) or 'nothing wrong'}")
            failed |= bool(wrong)
        browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
