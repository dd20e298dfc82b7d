//! What is wrong with a JPEG, small enough to be passed around in inner loops.

use thiserror::Error;

use super::super::Reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("it ends early")]
    Truncated,
    #[error("a segment is shorter than its content")]
    Segment,
    #[error("a code table contradicts itself")]
    CodeTable,
    #[error("a table has number {0}, expected 0 to 3")]
    TableNumber(u8),
    #[error("code table {0} is missing")]
    NoCodeTable(u8),
    #[error("quantisation table {0} is missing")]
    NoQuantization(u8),
    #[error("{0} is not supported")]
    Coding(&'static str),
    #[error("{0} bits a sample are not supported")]
    Precision(u8),
    #[error("{0} components, expected 1, 3 or 4")]
    Components(usize),
    #[error("its size is 0, which its coded data would have to tell")]
    NoSize,
    #[error("sampling factors {0}×{1} are out of range or do not divide the image's")]
    Sampling(usize, usize),
    #[error("it holds two images")]
    SecondFrame,
    #[error("coded data come before the header of the image")]
    NoFrame,
    #[error("it holds no image")]
    NoImage,
    #[error("component {0} has no coded data")]
    NoData(u8),
    #[error("the header of a scan makes no sense")]
    Scan,
    #[error("it has more than {} scans", super::MAX_SCANS)]
    TooManyScans,
    #[error("the coded data hold a code that does not exist")]
    Code,
    #[error("a block has more than 64 coefficients")]
    Overfull,
    #[error("restart marker {expected:#04x} is missing, found {found:#04x}")]
    Restart { expected: u8, found: u8 },
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Truncated => Reason::Truncated { format: "JPEG" },
            fault => Reason::Undecodable { format: "JPEG", detail: fault.to_string() },
        }
    }
}
