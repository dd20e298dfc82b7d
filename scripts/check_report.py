"""Opens reports in a headless Chromium, and shows what they ask for, what they complain of, and how large they are.

    python scripts/check_report.py REPORT.html... [--chromium PROGRAM] [--pictures FOLDER]              (playwright from PyPI)

Each page is opened at the width of a desktop and of a phone, light and dark. Exits with 1 if a page makes a request besides the one for
itself, writes to the console, is wider than the window, or has 5 MB or more. With --pictures, leaves a picture of each.
"""
import argparse
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = {"desktop": 1280, "phone": 390}
MOST_BYTES = 5_000_000


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
        browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
