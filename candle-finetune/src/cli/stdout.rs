//! Stdout, where data go: an error in writing to it names it.

use std::io::{self, StdoutLock, Write};

use candle_finetune::Error;

/// What errors call it.
pub const NAME: &str = "stdout";

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
    io::Error::new(source.kind(), error(source))
}

/// An error in writing to it, as one of the library.
pub fn error(source: io::Error) -> Error {
    Error::Io { path: NAME.into(), source }
}
