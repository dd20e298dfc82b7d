//! The layer of markers: where segments and coded data begin and end, and the headers.
//!
//! Source: ITU-T T.81, annex B. Between segments anything is stepped over, as libjpeg does.

use std::sync::Arc;

use super::{
    fault::Fault,
    frame::{Component, Frame},
    huffman::Codes,
    scan::{Part, Scan},
    standard::STANDARD,
};

/// Where the coefficients of a block go: they are stored from low to high frequency.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// The second byte of a marker; the first is 0xff.
pub(super) mod marker {
    pub const END_OF_IMAGE: u8 = 0xd9;
    pub const START_OF_SCAN: u8 = 0xda;
    pub const RESTART: u8 = 0xd0;
    pub const BASELINE: u8 = 0xc0;
    pub const EXTENDED: u8 = 0xc1;
    pub const PROGRESSIVE: u8 = 0xc2;
    pub const CODES: u8 = 0xc4;
    pub const QUANTIZATION: u8 = 0xdb;
    pub const RESTART_INTERVAL: u8 = 0xdd;
    pub const JFIF: u8 = 0xe0;
    pub const EXIF: u8 = 0xe1;
    pub const ADOBE: u8 = 0xee;

    /// Whether no segment belongs to it: restarts out of place, the start of the image.
    pub fn stands_alone(code: u8) -> bool {
        matches!(code, 0x01 | 0xd0..=0xd8)
    }
}

/// Steps through the bytes of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next marker, wherever it is.
    pub(super) fn marker(&mut self) -> Result<u8, Fault> {
        loop {
            match *self.bytes {
                [] | [_] => return Err(Fault::Truncated),
                [0xff, code, ref rest @ ..] if code != 0x00 && code != 0xff => {
                    self.bytes = rest;
                    return Ok(code);
                }
                [_, ref rest @ ..] => self.bytes = rest,
            }
        }
    }

    /// The content of a segment, whose length stands in front of it.
    pub(super) fn segment(&mut self) -> Result<&'a [u8], Fault> {
        let [high, low, ..] = *self.bytes else {
            return Err(Fault::Truncated);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 {
            return Err(Fault::Segment);
        }
        let (segment, rest) = self.bytes.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.bytes = rest;
        Ok(&segment[2..])
    }

    /// The next eight bytes, where none of them can be the start of a marker.
    #[inline(always)]
    pub(super) fn word(&self) -> Option<u64> {
        let word = u64::from_be_bytes(*self.bytes.first_chunk()?);
        (!has_ones(word)).then_some(word)
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
    }

    /// The next byte of coded data, where 0xff is written as 0xff 0x00; `None` at a marker and at the end.
    pub(super) fn coded_byte(&mut self) -> Option<u8> {
        match *self.bytes {
            [0xff, 0x00, ..] => self.skip(2),
            [0xff, ..] | [] => return None,
            [byte, ..] => {
                self.skip(1);
                return Some(byte);
            }
        }
        Some(0xff)
    }
}

/// Whether one of the eight bytes is 0xff.
#[inline(always)]
fn has_ones(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    ((!word).wrapping_sub(LOW) & word & (LOW << 7)) != 0
}

/// What the segments have said so far.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    quantization: [Option<[u16; 64]>; 4],
    dc_codes: [Option<Arc<Codes>>; 4],
    ac_codes: [Option<Arc<Codes>>; 4],
    /// MCUs between restart markers; 0 for none.
    pub restart_interval: usize,
    pub jfif: bool,
    /// The colour transform that Adobe's segment names.
    pub adobe: Option<u8>,
    /// EXIF data, from the TIFF header on.
    pub exif: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// Takes in any segment but a frame's or a scan's.
    pub(super) fn read(&mut self, code: u8, segment: &'a [u8]) -> Result<(), Fault> {
        match code {
            marker::QUANTIZATION => self.read_quantization(segment),
            marker::CODES => self.read_codes(segment),
            marker::RESTART_INTERVAL => self.read_restart_interval(segment),
            _ => {
                self.read_application(code, segment);
                Ok(())
            }
        }
    }

    fn read_quantization(&mut self, mut segment: &[u8]) -> Result<(), Fault> {
        while let [description, rest @ ..] = segment {
            let (wide, number) = (description >> 4 != 0, description & 15);
            let size = if wide { 128 } else { 64 };
            let (values, rest) = rest.split_at_checked(size).ok_or(Fault::Segment)?;
            let slot = self.quantization.get_mut(usize::from(number)).ok_or(Fault::TableNumber(number))?;
            let mut table = [0; 64];
            for (&to, value) in ZIGZAG.iter().zip(values.chunks_exact(size / 64)) {
                table[usize::from(to)] = value.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
            }
            *slot = Some(table);
            segment = rest;
        }
        Ok(())
    }

    pub(super) fn read_codes(&mut self, mut segment: &[u8]) -> Result<(), Fault> {
        while let [description, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Fault::Segment)?;
            let symbols = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(symbols).ok_or(Fault::Segment)?;
            let number = description & 15;
            let tables = if description >> 4 == 0 { &mut self.dc_codes } else { &mut self.ac_codes };
            let slot = tables.get_mut(usize::from(number)).ok_or(Fault::TableNumber(number))?;
            *slot = Some(Arc::new(Codes::new(counts, symbols)?));
            segment = rest;
        }
        Ok(())
    }

    fn read_restart_interval(&mut self, segment: &[u8]) -> Result<(), Fault> {
        let interval = segment.first_chunk::<2>().ok_or(Fault::Segment)?;
        self.restart_interval = usize::from(u16::from_be_bytes(*interval));
        Ok(())
    }

    fn read_application(&mut self, code: u8, segment: &'a [u8]) {
        match code {
            marker::JFIF => self.jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
            marker::ADOBE if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied().or(self.adobe),
            marker::EXIF => self.exif = self.exif.or(segment.strip_prefix(b"Exif\0\0")),
            _ => {}
        }
    }

    /// The header of a scan.
    pub(super) fn scan(&self, segment: &[u8], frame: &mut Frame) -> Result<Scan, Fault> {
        let (&count, rest) = segment.split_first().ok_or(Fault::Segment)?;
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or(Fault::Segment)?;
        let &[first, last, approximation] = rest.first_chunk().ok_or(Fault::Segment)?;
        let mut parts = Vec::new();
        for selector in selectors.chunks_exact(2) {
            let component = frame.components.iter().position(|c| c.id == selector[0]).ok_or(Fault::Scan)?;
            self.latch_quantization(&mut frame.components[component])?;
            let [dc, ac] = [selector[1] >> 4, selector[1] & 15];
            parts.push(Part {
                component,
                dc: table(&self.dc_codes, dc).or_else(|| table(&STANDARD.dc_codes, dc)).ok_or(dc),
                ac: table(&self.ac_codes, ac).or_else(|| table(&STANDARD.ac_codes, ac)).ok_or(ac),
            });
        }
        let scan = Scan {
            parts,
            band: first..=last,
            high: approximation >> 4,
            low: approximation & 15,
            restart_interval: self.restart_interval,
        };
        scan.check(frame)?;
        Ok(scan)
    }

    /// A component keeps the quantisation that it has at its first scan, even if its table is replaced later.
    fn latch_quantization(&self, component: &mut Component) -> Result<(), Fault> {
        let number = component.quantization_number;
        let table = self.quantization.get(usize::from(number)).copied().flatten();
        component.quantization = component.quantization.or(table);
        component.quantization.map(|_| ()).ok_or(Fault::NoQuantization(number))
    }
}

fn table(tables: &[Option<Arc<Codes>>; 4], number: u8) -> Option<Arc<Codes>> {
    tables.get(usize::from(number)).cloned().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_visits_every_place_once() {
        let mut places = ZIGZAG;
        places.sort();
        assert!(places.iter().enumerate().all(|(at, &place)| at == usize::from(place)));
    }

    #[test]
    fn markers_are_found_behind_filling_garbage_and_stuffed_bytes() {
        let mut reader = Reader::new(&[1, 0xff, 0x00, 0xff, 0xff, 0xdb, 0, 4, 7, 8, 0xff, 0xd9, 9]);
        assert_eq!(reader.marker(), Ok(0xdb));
        assert_eq!(reader.segment(), Ok([7, 8].as_slice()));
        assert_eq!(reader.marker(), Ok(0xd9));
        assert_eq!(reader.marker(), Err(Fault::Truncated));
    }

    #[test]
    fn segments_that_promise_more_than_there_is_are_truncated() {
        assert_eq!(Reader::new(&[0, 9, 1]).segment(), Err(Fault::Truncated));
        assert_eq!(Reader::new(&[0]).segment(), Err(Fault::Truncated));
        assert_eq!(Reader::new(&[0, 1]).segment(), Err(Fault::Segment));
    }

    #[test]
    fn words_are_read_only_where_no_byte_could_start_a_marker() {
        assert_eq!(Reader::new(&[1, 2, 3, 4, 5, 6, 7, 0xfe, 0xff]).word(), Some(0x0102_0304_0506_07fe));
        assert_eq!(Reader::new(&[1; 7]).word(), None);
        for at in 0..8 {
            let mut bytes = [0x80, 0x00, 0x7f, 0xfe, 0x01, 0x00, 0x80, 0xfe];
            bytes[at] = 0xff;
            assert_eq!(Reader::new(&bytes).word(), None, "{at}");
        }
    }

    #[test]
    fn wide_quantisation_is_read_and_put_in_order() {
        let mut headers = Headers::default();
        let wide = [[0x13].as_slice(), &(0..64u16).flat_map(|n| (256 + n).to_be_bytes()).collect::<Vec<_>>()].concat();
        headers.read(marker::QUANTIZATION, &wide).unwrap();
        let table = headers.quantization[3].unwrap();
        assert_eq!([table[0], table[1], table[8], table[63]], [256, 257, 258, 319]);
        assert_eq!(headers.read(marker::QUANTIZATION, &[4; 65]), Err(Fault::TableNumber(4)));
        assert_eq!(headers.read(marker::QUANTIZATION, &[0; 64]), Err(Fault::Segment));
    }
}
