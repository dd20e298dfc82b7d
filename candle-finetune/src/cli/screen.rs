//! What stderr shows: lines that stay and, where it is a terminal, bars below them that go.
//!
//! Whoever writes to stderr while a bar may be shown does it through here, so that neither tears the other.

use std::fmt::Display;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use super::terminal::Terminal;

/// Drawings a second.
const RATE: u8 = 20;

static BARS: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(target()));

fn target() -> ProgressDrawTarget {
    let drawn = |terminal| ProgressDrawTarget::term_like_with_hz(Box::new(terminal), RATE);
    Terminal::of_stderr().map_or_else(ProgressDrawTarget::hidden, drawn)
}

/// Bars that are shown.
static SHOWN: AtomicUsize = AtomicUsize::new(0);

/// A bar that goes with whoever holds it.
pub struct Shown(ProgressBar);

impl Deref for Shown {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        BARS.remove(&self.0);
        SHOWN.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Shows a bar below those that are shown already; nothing where stderr is no terminal.
pub fn show(bar: ProgressBar) -> Shown {
    SHOWN.fetch_add(1, Ordering::SeqCst);
    let shown = Shown(BARS.add(bar));
    // A line above a bar that was never drawn would be drawn over.
    shown.force_draw();
    shown
}

/// Shows no bars from now on.
pub fn hide_bars() {
    BARS.set_draw_target(ProgressDrawTarget::hidden());
}

/// Whether bars are seen.
pub fn is_live() -> bool {
    !BARS.is_hidden()
}

/// Whether there are bars now.
pub fn has_bars() -> bool {
    SHOWN.load(Ordering::SeqCst) > 0 && is_live()
}

/// Columns of the terminal.
pub fn width() -> usize {
    Term::stderr().size().1.into()
}

/// A line above all bars, which goes nowhere if nobody reads stderr.
pub fn line(text: impl Display) {
    if has_bars() {
        let _ = BARS.println(text.to_string());
    } else {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Leaves a terminal as a program that ends at once should: without bars, the cursor at the beginning of a line.
pub fn leave() {
    if has_bars() {
        let _ = BARS.clear();
        hide_bars();
    } else if is_live() {
        line("");
    }
}

/// A writer of whole lines above all bars.
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        line(String::from_utf8_lossy(text).trim_end_matches('\n'));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
