//! One pickle → the values it describes.
//!
//! A restricted machine for protocols 0 to 5: it builds dictionaries, lists and tensor descriptions, and nothing else.
//! It has no means to run code: a function or class outside the table in [`globals`] is a name, and calling it gives
//! that name again. Strings are borrowed from the file. Containers refer to each other by number, so that aliases cost
//! nothing, cycles do no harm, and dropping a deep nest does not recurse.
//!
//! Source: Python's `pickletools`, which documents every opcode.

mod globals;
mod machine;
mod opcode;
mod value;

pub(super) use machine::{MAX_STEPS, parse};
pub(super) use value::{Object, ObjectId, Pickle, Storage, TensorParts, Value};

/// What is wrong at one place of a pickle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleProblem {
    /// The file ends within an opcode or before `STOP`.
    #[error("the file ends there")]
    Truncated,
    /// A byte that is no opcode.
    #[error("unknown opcode {0:#04x}")]
    UnknownOpcode(u8),
    /// An opcode that refers to data outside the file.
    #[error("opcode {0:#04x} refers to data outside the file")]
    OutOfBand(u8),
    /// A number or a string that cannot be read.
    #[error("expected {0}")]
    Expected(&'static str),
    /// An opcode takes more values than there are.
    #[error("takes a value from an empty stack")]
    EmptyStack,
    /// An opcode wants a mark that was never set.
    #[error("no mark was set")]
    NoMark,
    /// A memo entry that was never stored.
    #[error("memo entry {0} was never stored")]
    NoMemo(u32),
    /// A tensor is built from something else than a storage, an offset, a size and strides.
    #[error("a tensor is not made of storage, offset, size and strides")]
    TensorParts,
    /// Far more opcodes than any checkpoint has.
    #[error("more than {MAX_STEPS} steps")]
    TooLong,
}
