//! Bytes → opcodes with their arguments.
//!
//! Knows neither stack nor memo: the many opcodes that differ only in how an argument is spelled become one [`Op`].

use super::PickleProblem;
use super::value::Value;

/// What one opcode asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op<'a> {
    Push(Value<'a>),
    /// `PROTO` and `FRAME`: nothing to do.
    Skip,
    Stop,
    Mark,
    Pop,
    PopMark,
    Duplicate,
    Put(u32),
    Memoize,
    Get(u32),
    EmptyTuple,
    EmptyList,
    EmptyDict,
    /// A tuple of the last values.
    TupleOf(usize),
    /// A tuple of all values since the mark.
    Tuple,
    List,
    Dict,
    Append,
    Appends,
    SetItem,
    SetItems,
    Global {
        module: &'a str,
        name: &'a str,
    },
    /// A global whose names are the last two values.
    StackGlobal,
    /// A value this reader does not look into.
    Opaque,
    /// Call with a tuple of arguments: `REDUCE`, `NEWOBJ`.
    Call,
    /// Call with a tuple and keyword arguments: `NEWOBJ_EX`.
    CallWithKeywords,
    /// Call the named global with all values since the mark.
    CallNamed {
        module: &'a str,
        name: &'a str,
    },
    /// Call the first value since the mark with the others.
    CallMarked,
    Build,
    /// Replace an identifier by the thing that lies outside the pickle.
    Persistent,
}

/// Reads opcodes one after another.
#[derive(Debug)]
pub(super) struct Opcodes<'a> {
    bytes: &'a [u8],
    /// Position of the next byte.
    pub(super) at: usize,
}

type Result<T> = std::result::Result<T, PickleProblem>;

impl<'a> Opcodes<'a> {
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Self {
        Self { bytes, at: start }
    }

    /// Reads the next opcode and its argument.
    pub(super) fn next(&mut self) -> Result<Op<'a>> {
        let [opcode] = self.array()?;
        match opcode {
            b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | b'I' | 0x8a | 0x8b | b'L' | b'G' | b'F' => self.number(opcode),
            b'X' | 0x8c | 0x8d | b'V' | b'U' | b'T' | b'S' | b'C' | b'B' | 0x8e | 0x96 => self.string(opcode),
            b'q' | b'r' | b'p' | b'h' | b'j' | b'g' => self.memo(opcode),
            0x80 => self.skip(1),
            0x95 => self.skip(8),
            0x82 => self.opaque_after(1),
            0x83 => self.opaque_after(2),
            0x84 => self.opaque_after(4),
            0x97 | 0x98 => Err(PickleProblem::OutOfBand(opcode)),
            b'c' => Ok(Op::Global { module: self.line()?, name: self.line()? }),
            b'i' => Ok(Op::CallNamed { module: self.line()?, name: self.line()? }),
            b'P' => self.line().map(|_| Op::Opaque),
            _ => without_argument(opcode),
        }
    }

    fn number(&mut self, opcode: u8) -> Result<Op<'a>> {
        Ok(Op::Push(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.array::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'I' | b'L' => decimal(self.line()?)?,
            0x8a => integer(self.counted::<1>()?),
            0x8b => integer(self.counted::<4>()?),
            b'G' => self.array::<8>().map(|_| Value::Float)?,
            _ => self.line().map(|_| Value::Float)?,
        }))
    }

    fn string(&mut self, opcode: u8) -> Result<Op<'a>> {
        Ok(Op::Push(match opcode {
            b'X' => Value::Str(utf8(self.counted::<4>()?)?),
            0x8c => Value::Str(utf8(self.counted::<1>()?)?),
            0x8d => Value::Str(utf8(self.counted::<8>()?)?),
            b'V' => escaped(self.line()?),
            b'S' => escaped(quoted(self.line()?)?),
            b'U' => python2(self.counted::<1>()?),
            b'T' => python2(self.counted::<4>()?),
            b'C' => self.counted::<1>().map(|_| Value::Bytes)?,
            b'B' => self.counted::<4>().map(|_| Value::Bytes)?,
            _ => self.counted::<8>().map(|_| Value::Bytes)?,
        }))
    }

    fn memo(&mut self, opcode: u8) -> Result<Op<'a>> {
        Ok(match opcode {
            b'q' => Op::Put(self.array::<1>()?[0].into()),
            b'r' => Op::Put(u32::from_le_bytes(self.array()?)),
            b'p' => Op::Put(memo_index(self.line()?)?),
            b'h' => Op::Get(self.array::<1>()?[0].into()),
            b'j' => Op::Get(u32::from_le_bytes(self.array()?)),
            _ => Op::Get(memo_index(self.line()?)?),
        })
    }

    fn skip(&mut self, count: usize) -> Result<Op<'a>> {
        self.take(count).map(|_| Op::Skip)
    }

    fn opaque_after(&mut self, count: usize) -> Result<Op<'a>> {
        self.take(count).map(|_| Op::Opaque)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).ok_or(PickleProblem::Truncated)?;
        let taken = rest.get(..count).ok_or(PickleProblem::Truncated)?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        let array = rest.ok_or(PickleProblem::Truncated)?;
        self.at += N;
        Ok(*array)
    }

    /// Bytes behind their count, a little-endian number of `N` ≤ 8 bytes.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let count = self.array::<N>()?.iter().rev().fold(0u64, |count, &byte| count << 8 | u64::from(byte));
        self.take(usize::try_from(count).map_err(|_| PickleProblem::Truncated)?)
    }

    /// The text up to the next line break.
    fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..).ok_or(PickleProblem::Truncated)?;
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleProblem::Truncated)?;
        let line = utf8(self.take(length)?)?;
        self.at += 1;
        Ok(line)
    }
}

fn without_argument<'a>(opcode: u8) -> Result<Op<'a>> {
    Ok(match opcode {
        b'.' => Op::Stop,
        b'(' => Op::Mark,
        b'0' => Op::Pop,
        b'1' => Op::PopMark,
        b'2' => Op::Duplicate,
        0x94 => Op::Memoize,
        b')' => Op::EmptyTuple,
        b']' | 0x8f => Op::EmptyList,
        b'}' => Op::EmptyDict,
        0x85 => Op::TupleOf(1),
        0x86 => Op::TupleOf(2),
        0x87 => Op::TupleOf(3),
        b't' => Op::Tuple,
        b'l' | 0x91 => Op::List,
        b'd' => Op::Dict,
        b'a' => Op::Append,
        b'e' | 0x90 => Op::Appends,
        b's' => Op::SetItem,
        b'u' => Op::SetItems,
        0x93 => Op::StackGlobal,
        b'R' | 0x81 => Op::Call,
        0x92 => Op::CallWithKeywords,
        b'o' => Op::CallMarked,
        b'b' => Op::Build,
        b'Q' => Op::Persistent,
        _ => return Err(PickleProblem::UnknownOpcode(opcode)),
    })
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| PickleProblem::Expected("UTF-8"))
}

/// A string of Python 2, which may be text or not.
fn python2(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes, Value::Str)
}

fn quoted(line: &str) -> Result<&str> {
    let inner = |quote| line.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).ok_or(PickleProblem::Expected("a quoted string"))
}

/// Text that may hold escapes. No name or key of a checkpoint does, so those that do are not decoded.
fn escaped(text: &str) -> Value<'_> {
    if text.contains('\\') { Value::Bytes } else { Value::Str(text) }
}

fn memo_index(line: &str) -> Result<u32> {
    line.parse().map_err(|_| PickleProblem::Expected("a memo index"))
}

/// An integer in decimal; `00` and `01` are booleans, and `L` ends what was a long in Python 2.
fn decimal(line: &str) -> Result<Value<'_>> {
    let digits = line.strip_suffix('L').unwrap_or(line);
    match line {
        "00" => Ok(Value::Bool(false)),
        "01" => Ok(Value::Bool(true)),
        _ => match digits.parse() {
            Ok(value) => Ok(Value::Int(value)),
            Err(error) if is_overflow(&error) => Ok(Value::BigInt(digits.as_bytes())),
            Err(_) => Err(PickleProblem::Expected("a decimal number")),
        },
    }
}

fn is_overflow(error: &std::num::ParseIntError) -> bool {
    matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow)
}

/// Two's complement, little-endian, of any length.
fn integer(bytes: &[u8]) -> Value<'_> {
    let Some(&last) = bytes.last() else {
        return Value::Int(0);
    };
    let sign = if last & 0x80 == 0 { 0 } else { -1 };
    if bytes.len() > 8 {
        return Value::BigInt(bytes);
    }
    Value::Int(bytes.iter().rev().fold(sign, |value, &byte| value << 8 | i64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(bytes: &[u8]) -> Result<Op<'_>> {
        Opcodes::new(bytes, 0).next()
    }

    #[test]
    fn numbers_are_read_in_every_spelling() {
        for (bytes, expected) in [
            (&b"K\xff"[..], 255),
            (b"M\x01\x02", 513),
            (b"J\xff\xff\xff\xff", -1),
            (b"I-12\n", -12),
            (b"L7L\n", 7),
            (b"\x8a\x00", 0),
            (b"\x8a\x01\xff", -1),
            (b"\x8b\x02\0\0\0\xff\x00", 255),
        ] {
            assert_eq!(first(bytes), Ok(Op::Push(Value::Int(expected))), "{bytes:?}");
        }
        assert_eq!(first(b"I01\n"), Ok(Op::Push(Value::Bool(true))));
        assert_eq!(first(b"\x8a\x09123456789"), Ok(Op::Push(Value::BigInt(b"123456789"))));
    }

    #[test]
    fn text_is_read_in_every_spelling() {
        for bytes in [
            &b"X\x02\0\0\0ab"[..],
            b"\x8c\x02ab",
            b"\x8d\x02\0\0\0\0\0\0\0ab",
            b"Vab\n",
            b"S'ab'\n",
            b"U\x02ab",
            b"T\x02\0\0\0ab",
        ] {
            assert_eq!(first(bytes), Ok(Op::Push(Value::Str("ab"))), "{bytes:?}");
        }
    }

    #[test]
    fn a_count_beyond_the_file_is_truncation() {
        assert_eq!(first(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab"), Err(PickleProblem::Truncated));
        assert_eq!(first(b"Vno line break"), Err(PickleProblem::Truncated));
    }

    #[test]
    fn broken_text_and_numbers_are_errors() {
        assert_eq!(first(b"\x8c\x01\xff"), Err(PickleProblem::Expected("UTF-8")));
        assert_eq!(first(b"Ix\n"), Err(PickleProblem::Expected("a decimal number")));
        assert_eq!(first(b"S'\n"), Err(PickleProblem::Expected("a quoted string")));
        assert_eq!(first(b"g-1\n"), Err(PickleProblem::Expected("a memo index")));
    }

    #[test]
    fn a_byte_that_is_no_opcode_is_named() {
        assert_eq!(first(b"\xff").unwrap_err().to_string(), "unknown opcode 0xff");
    }

    proptest! {
        #[test]
        fn integers_come_back_as_they_were_written(value: i64) {
            let bytes = value.to_le_bytes();
            prop_assert_eq!(integer(&bytes), Value::Int(value));
            let line = value.to_string();
            prop_assert_eq!(decimal(&line), Ok(Value::Int(value)));
        }
    }
}
