//! A terminal whose cursor rests on an empty line below the bars.
//!
//! indicatif leaves it behind the last bar's last column: the `^C` that a terminal echoes would then push all bars out of their place.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;
use indicatif::TermLike;

/// Draws as indicatif asks: a drawing begins with a move upwards from the end of the last one, and ends with a flush.
#[derive(Debug)]
pub struct Terminal {
    term: Term,
    /// Whether this drawing wrote anything.
    wrote: AtomicBool,
    /// Whether the cursor is below the last drawing.
    is_below: AtomicBool,
}

impl Terminal {
    /// That of stderr, where it is one that can move its cursor.
    pub fn of_stderr() -> Option<Terminal> {
        let term = Term::buffered_stderr();
        let draws = term.is_term() && !console::is_dumb();
        draws.then(|| Terminal { term, wrote: AtomicBool::new(false), is_below: AtomicBool::new(false) })
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.term.size().1
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        if !self.is_below.swap(false, Ordering::SeqCst) {
            return self.term.move_cursor_up(lines);
        }
        self.term.clear_line()?;
        self.term.move_cursor_up(lines + 1)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.term.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.term.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.term.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.term.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.wrote.fetch_or(!text.is_empty(), Ordering::SeqCst);
        self.term.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.term.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        if self.wrote.swap(false, Ordering::SeqCst) {
            self.is_below.store(true, Ordering::SeqCst);
            self.term.write_line("")?;
        }
        self.term.flush()
    }
}
