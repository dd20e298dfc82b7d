//! The folder beside a page: which files may lie in it, and how they get there.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::charts::Failure;
use crate::error::{Result, io_error};
use crate::table::write_rows;

/// One list of files, so that nothing is written that a later report does not take away.
macro_rules! files {
    ($($file:ident = $name:literal,)*) => {
        /// A file that may lie beside a page.
        #[derive(Clone, Copy)]
        pub enum Beside {
            $(#[doc = $name] $file,)*
        }

        impl Beside {
            const ALL: &[Beside] = &[$(Beside::$file),*];

            fn name(self) -> &'static str {
                match self {
                    $(Beside::$file => $name,)*
                }
            }
        }
    };
}

files! {
    Classes = "classes.csv",
    Confusion = "confusion.csv",
    ConfusionDrawing = "confusion.svg",
    HeadLoss = "head-loss.svg",
    HeadTop1 = "head-top1.svg",
    Loss = "loss.svg",
    Predictions = "predictions.csv",
    Reliability = "reliability.csv",
    ReliabilityDrawing = "reliability.svg",
    RiskCoverage = "risk-coverage.svg",
    Top1 = "top1.svg",
}

/// The folder beside the page.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// A folder without what an earlier report left there.
    pub fn empty(folder: PathBuf) -> Result<Files> {
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let files = Files { folder };
        for old in files.there() {
            fs::remove_file(&old).map_err(io_error(old))?;
        }
        Ok(files)
    }

    /// Leaves none of them, nor the folder, unless something else is in it.
    pub fn take_away(&self) {
        for file in self.there() {
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_dir(&self.folder);
    }

    fn there(&self) -> impl Iterator<Item = PathBuf> {
        Beside::ALL.iter().map(|&file| self.path(file)).filter(|path| path.is_file())
    }

    /// Keeps a drawing, and gives it on.
    pub fn drawing(&self, file: Beside, drawing: std::result::Result<String, Failure>) -> Result<String> {
        let path = self.path(file);
        let svg = drawing.map_err(|failure| io_error(&path)(std::io::Error::other(failure.to_string())))?;
        fs::write(&path, &svg).map_err(io_error(&path))?;
        Ok(svg)
    }

    /// Writes a table.
    pub fn table(&self, file: Beside, rows: impl Iterator<Item = impl Serialize>) -> Result<()> {
        write_rows(&self.path(file), rows)
    }

    fn path(&self, file: Beside) -> PathBuf {
        self.folder.join(file.name())
    }
}
