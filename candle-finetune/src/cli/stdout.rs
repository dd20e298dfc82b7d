//! Stdout, where data go: an error in writing to it names it.

use std::io::{self, StdoutLock, Write};

/// Stdout, which nobody else writes to meanwhile.
pub struct Stdout(StdoutLock<'static>);

/// Stdout for as long as it is held.
pub fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(source: io::Error) -> io::Error {
    io::Error::new(source.kind(), format!("stdout: {source}"))
}
