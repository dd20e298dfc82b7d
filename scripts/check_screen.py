"""What a terminal shows while `finetune train` runs: needs `pyte` and a Unix system, and no network.

    python scripts/check_screen.py target/release/finetune

A pseudo-terminal of 80 and of 40 columns is rendered by pyte. Checked are the bar and the lines below it in the middle of a run, that
nothing of them is left at the end, and that one Ctrl-C, and two, leave the terminal as they should. `--show` prints every screen.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path

import pyte

ROWS = 60
PATIENCE = 120  # seconds
BAR = re.compile("[━╸]")


class Terminal:
    """A program on a pseudo-terminal, and its screen."""

    def __init__(self, command, columns, folder):
        self.screen = pyte.Screen(columns, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.end = time.monotonic() + PATIENCE
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ |= {"TERM": "xterm-256color", "NO_COLOR": "1"}
            time.sleep(0.2)  # until the terminal has its size
            os.execv(command[0], command)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))

    def read(self):
        """Whether there may be more."""
        assert time.monotonic() < self.end, "\n".join(self.lines())
        if not select.select([self.terminal], [], [], 0.05)[0]:
            return True
        try:
            text = os.read(self.terminal, 1 << 16)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.stream.feed(text)
        return bool(text)

    def wait_for(self, sign):
        """The screen once a line has `sign`."""
        while not any(re.search(sign, line) for line in self.lines()):
            assert self.read(), f"ended without `{sign}`:\n" + "\n".join(self.lines())
        return self.lines()

    def interrupt(self):
        os.write(self.terminal, b"\x03")

    def finish(self):
        """The last screen and the exit code."""
        while self.read():
            pass
        assert not self.screen.cursor.hidden and self.screen.cursor.x == 0, self.screen.cursor
        return self.lines(), os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def lines(self):
        return [line.rstrip() for line in self.screen.display if line.strip()]


def check(columns, train, show):
    def begin(*options):
        return Terminal([*train, *options], columns, folder)

    def shown(title, lines):
        if show:
            print(f"--- {columns} columns, {title}", *lines, sep="\n")

    with tempfile.TemporaryDirectory() as folder:
        terminal = begin("--epochs", "8", "--out", "whole")
        middle = terminal.wait_for(r"\b5/8 (last )?(loss|top-1)")
        shown("in the fifth epoch", middle)
        assert sum(bool(BAR.search(line)) for line in middle) <= 1, middle
        assert re.search(r"best +\d+\.\d\d % (after epoch \d|\(\d\)) +[▁▂▃▄▅▆▇█]{2,4}$", middle[-1]), middle
        lines, code = terminal.finish()
        shown("at the end", lines)
        assert code == 0 and not any(BAR.search(line) for line in lines), lines
        assert sum("curve" in line for line in lines) == 1 and not any(re.search(r"best +\d", line) for line in lines), lines

        terminal = begin("--epochs", "1000", "--out", "stopped")
        terminal.wait_for(r"\b3/1000 (last )?(loss|top-1)")
        terminal.interrupt()
        lines, code = terminal.finish()
        shown("stopped", lines)
        assert code == 0 and not any(BAR.search(line) or "^C" in line for line in lines), lines
        assert any(line == "stopping (again to stop at once)" for line in lines), lines

        terminal = begin("--epochs", "1000", "--out", "stopped-at-once")
        terminal.wait_for(r"\b3/1000 (last )?(loss|top-1)")
        terminal.interrupt()
        terminal.interrupt()
        lines, code = terminal.finish()
        shown("stopped at once", lines)
        assert code in (0, 130) and not any(BAR.search(line) for line in lines), lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    program = str(arguments.program.resolve())
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "demo", "--out", folder + "/demo"], check=True, capture_output=True)
        model = ["--model", "resnet20_cifar.embedded", "--no-map-cache", "--no-report"]
        train = [program, "train", folder + "/demo/pictures", *model, "--train-from", "layer3", "--freeze-epochs", "2"]
        for columns in (80, 40):
            check(columns, train, arguments.show)
            print(f"{columns} columns: ok")


if __name__ == "__main__":
    main()
