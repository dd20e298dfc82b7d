//! Huffman codes, and the bits of the coded data.
//!
//! Source: ITU-T T.81, annexes C and F.

use super::{fault::Fault, segments::Reader};

/// How many bits are looked up at once; longer codes are rare.
const LOOKAHEAD: u32 = 10;

/// The codes of one table, by their first bits.
#[derive(Debug, Clone)]
pub(super) struct Codes {
    lookup: Box<[Entry; 1 << LOOKAHEAD]>,
    /// By length: the first 16 bits from which on no code is that short.
    limits: [u32; 17],
    /// By length: what turns a code into an index of `symbols`.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

/// A code, as it is looked up: its symbol, its length, and that together with the length of the number behind it.
/// All 0 where no code is that short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entry(u32);

impl Entry {
    fn new(symbol: u8, length: u32) -> Self {
        Self(u32::from(symbol) << 16 | length << 8 | (length + u32::from(symbol & 15)))
    }
}

/// A code and the number behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coded {
    /// The upper half of the code's symbol: how many zeros come first.
    pub run: u32,
    /// The lower half: the number of bits of `value`.
    pub size: u32,
    pub value: i32,
}

impl Codes {
    /// From the number of codes of each length, 1 to 16 bits, and their symbols in order.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Fault> {
        let mut codes = Self {
            lookup: Box::new([Entry::default(); 1 << LOOKAHEAD]),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            codes.offsets[length as usize] = index as i32 - code as i32;
            for _ in 0..count {
                let symbol = *symbols.get(index).ok_or(Fault::CodeTable)?;
                codes.enter(code, length, symbol);
                (code, index) = (code + 1, index + 1);
            }
            if code > 1 << length {
                return Err(Fault::CodeTable);
            }
            codes.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(codes)
    }

    /// Fills the part of the lookup whose indices begin with `code`.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        if let Some(free) = LOOKAHEAD.checked_sub(length) {
            let entries = self.lookup.iter_mut().skip((code << free) as usize).take(1 << free);
            entries.for_each(|entry| *entry = Entry::new(symbol, length));
        }
    }

    /// The code that the 16 bits `next` begin with, if it is longer than what is looked up.
    #[cold]
    fn long(&self, next: u32) -> Option<Entry> {
        let length = (LOOKAHEAD as usize + 1..=16).find(|&length| next < self.limits[length])?;
        let index = (next >> (16 - length)) as i32 + self.offsets[length];
        let symbol = *self.symbols.get(index as usize)?;
        Some(Entry::new(symbol, length as u32))
    }
}

/// Reads coded data bit by bit, up to the next marker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    reader: Reader<'a>,
    /// The next bits, from the top; below the first `count` stand zeros or what will be read there.
    buffer: u64,
    count: u32,
    /// How many zeros were put behind the end of the data.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Self {
        Self { reader, buffer: 0, count: 0, made_up: 0 }
    }

    /// What comes behind the coded data.
    pub(super) fn into_reader(self) -> Reader<'a> {
        self.reader
    }

    /// An error once more was read than there is.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.made_up > self.count { Err(Fault::Truncated) } else { Ok(()) }
    }

    /// Steps over the restart marker that has to come next.
    pub(super) fn restart(&mut self, expected: u8) -> Result<(), Fault> {
        let found = self.reader.marker()?;
        if found != expected {
            return Err(Fault::Restart { expected, found });
        }
        (self.buffer, self.count, self.made_up) = (0, 0, 0);
        Ok(())
    }

    /// The next code and the number behind it, which is negative if it begins with a 0.
    #[inline(always)]
    pub(super) fn next(&mut self, codes: &Codes) -> Result<Coded, Fault> {
        self.fill();
        let mut entry = codes.lookup[(self.buffer >> (64 - LOOKAHEAD)) as usize];
        if entry == Entry::default() {
            entry = codes.long((self.buffer >> 48) as u32).ok_or(Fault::Code)?;
        }
        let Entry(packed) = entry;
        let (length, size) = (packed >> 8 & 0xff, packed >> 16 & 15);
        let behind = self.buffer << length;
        let positive = (behind >> 63) as i32;
        let value = (behind >> 1 >> (63 - size)) as i32 - ((1 << size) - 1) * (1 - positive);
        self.skip(packed & 0xff);
        Ok(Coded { run: packed >> 20, size, value })
    }

    /// The next `count` bits, at most 16; behind a code there are always that many.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = (self.buffer >> 1 >> (63 - count)) as u32;
        self.skip(count);
        bits
    }

    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        self.fill();
        self.take(1) == 1
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// Makes sure of 32 bits: the longest code and the longest value.
    #[inline(always)]
    fn fill(&mut self) {
        if self.count >= 32 {
            return;
        }
        match self.reader.word() {
            Some(word) => {
                self.buffer |= word >> self.count;
                let bytes = (64 - self.count) / 8;
                self.reader.skip(bytes as usize);
                self.count += 8 * bytes;
            }
            None => *self = self.filled_bytewise(),
        }
    }

    #[cold]
    fn filled_bytewise(mut self) -> Self {
        while self.count <= 56 {
            let byte = self.reader.coded_byte();
            self.made_up += if byte.is_none() { 8 } else { 0 };
            self.buffer |= u64::from(byte.unwrap_or(0)) << (56 - self.count);
            self.count += 8;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One code of each length: 0, 10, 110 and so on, for symbols of one bit after as many zeros as the length, modulo 16.
    fn ladder() -> Codes {
        let symbols: Vec<u8> = (1..=16).map(|length| (length % 16) << 4 | 1).collect();
        Codes::new(&[1; 16], &symbols).unwrap()
    }

    /// Bits, filled up with ones, and written as coded data.
    fn coded(bits: &str) -> Vec<u8> {
        let bits = format!("{bits}{}", "1".repeat(7));
        let bytes = bits.as_bytes().chunks_exact(8).map(|bits| std::str::from_utf8(bits).unwrap());
        let bytes = bytes.map(|bits| u8::from_str_radix(bits, 2).unwrap());
        bytes.flat_map(|byte| if byte == 0xff { vec![0xff, 0] } else { vec![byte] }).collect()
    }

    #[test]
    fn codes_of_every_length_are_read_with_their_values() {
        let code = |length: usize| format!("{}0{}", "1".repeat(length - 1), length % 2);
        let bytes = coded(&(1..=16).chain((1..=16).rev()).map(code).collect::<String>());
        let mut bits = Bits::new(Reader::new(&bytes));
        for length in (1..=16).chain((1..=16).rev()) {
            let expected = Coded { run: length % 16, size: 1, value: if length % 2 == 1 { 1 } else { -1 } };
            assert_eq!(bits.next(&ladder()), Ok(expected), "{length}");
            assert_eq!(bits.check(), Ok(()), "{length}");
        }
    }

    #[test]
    fn values_that_begin_with_0_are_negative() {
        let codes = Codes::new(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[3]).unwrap();
        let bytes = coded("0000 0011 0100 0111".replace(' ', "").as_str());
        let mut bits = Bits::new(Reader::new(&bytes));
        let values: Vec<i32> = (0..4).map(|_| bits.next(&codes).unwrap().value).collect();
        assert_eq!(values, [-7, -4, 4, 7]);
    }

    #[test]
    fn more_bits_than_there_are_is_an_error_and_so_is_a_code_that_does_not_exist() {
        let bytes = [0b1010_1010, 0xff, 0xd9];
        let mut bits = Bits::new(Reader::new(&bytes));
        assert_eq!((0..8).map(|_| u8::from(bits.bit())).collect::<Vec<_>>(), [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(bits.check(), Ok(()));
        assert!(!bits.bit());
        assert_eq!(bits.check(), Err(Fault::Truncated));
        assert_eq!(bits.into_reader().marker(), Ok(0xd9));

        let ones = [0xff, 0, 0xff, 0, 0xff, 0];
        assert_eq!(Bits::new(Reader::new(&ones)).next(&ladder()), Err(Fault::Code));
    }

    #[test]
    fn restart_drops_padding_and_wants_its_number() {
        let bytes = [0b0111_1111, 0xff, 0xd3, 0b1000_0000];
        let mut bits = Bits::new(Reader::new(&bytes));
        assert!(!bits.bit());
        assert_eq!({ bits }.restart(0xd4), Err(Fault::Restart { expected: 0xd4, found: 0xd3 }));
        assert_eq!(bits.restart(0xd3), Ok(()));
        assert!(bits.bit());
        assert_eq!(bits.check(), Ok(()));
    }

    #[test]
    fn tables_that_contradict_themselves_are_refused() {
        let counts = |short: u8, long: u8| [short, long, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(Codes::new(&counts(2, 0), &[1, 2]).is_ok());
        assert_eq!(Codes::new(&counts(3, 0), &[1, 2, 3]).unwrap_err(), Fault::CodeTable);
        assert_eq!(Codes::new(&counts(2, 1), &[1, 2, 3]).unwrap_err(), Fault::CodeTable);
        assert_eq!(Codes::new(&counts(1, 1), &[1]).unwrap_err(), Fault::CodeTable);
    }
}
