//! The coded data of one scan: Huffman codes → coefficients.
//!
//! Each block of a sequential image is complete at once and becomes samples right away; a progressive image collects its
//! coefficients over many scans. Source: ITU-T T.81, annexes F and G.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use super::{
    fault::Fault,
    frame::{Component, Frame, SIDE},
    huffman::{Bits, Coded, Codes},
    idct,
    segments::{ZIGZAG, marker},
};
use crate::preprocess::vector::Kernel;

/// The run that stands for 16 zeros where no value follows; shorter ones end the block there.
const SIXTEEN_ZEROS: u32 = 15;

/// Blocks of an MCU at most, if it has several components.
const MAX_BLOCKS: usize = 10;

/// The highest bit that a progressive scan may begin or end at.
const MAX_BIT: u8 = 13;

/// What the header of a scan says.
#[derive(Debug)]
pub(super) struct Scan {
    pub parts: Vec<Part>,
    /// The coefficients that it is about; all of them in a sequential image, whatever stands here.
    pub band: RangeInclusive<u8>,
    /// The bit down to which coefficients are known from scans before; 0 if from none.
    pub high: u8,
    /// The bit down to which they will be known.
    pub low: u8,
    /// MCUs between restart markers; 0 for none.
    pub restart_interval: usize,
}

/// A component's part in a scan; where its codes are missing, the number of their table.
#[derive(Debug)]
pub(super) struct Part {
    /// Index of the component in the frame.
    pub component: usize,
    pub dc: Result<Arc<Codes>, u8>,
    pub ac: Result<Arc<Codes>, u8>,
}

impl Scan {
    /// Refuses what no scan of `frame` may be.
    pub(super) fn check(&self, frame: &Frame) -> Result<(), Fault> {
        let blocks = |part: &Part| frame.components[part.component].across * frame.components[part.component].down;
        let twice = |(n, part): (usize, &Part)| self.parts[..n].iter().any(|other| other.component == part.component);
        let fits = match self.parts.len() {
            0 => false,
            1 => true,
            _ => self.parts.iter().map(blocks).sum::<usize>() <= MAX_BLOCKS,
        };
        let known = !frame.progressive || self.is_progression();
        if fits && known && !self.parts.iter().enumerate().any(twice) { Ok(()) } else { Err(Fault::Scan) }
    }

    /// DC and AC coefficients come apart, AC of one component at a time, and after a first scan one bit at a time.
    fn is_progression(&self) -> bool {
        let (first, last) = (*self.band.start(), *self.band.end());
        let band = if first == 0 { last == 0 } else { first <= last && last < 64 && self.parts.len() == 1 };
        band && self.low <= MAX_BIT && (self.high == 0 || self.high == self.low + 1)
    }

    fn sequential(&self, frame: &Frame) -> Result<Sequential<'_>, Fault> {
        let mut tables = Vec::new();
        for part in &self.parts {
            let quantization = frame.components[part.component].quantization.unwrap_or([0; 64]);
            tables.push((need(&part.dc)?, need(&part.ac)?, quantization));
        }
        Ok(Sequential(tables))
    }

    fn dc_tables(&self) -> Result<Vec<&Codes>, Fault> {
        self.parts.iter().map(|part| need(&part.dc)).collect()
    }

    /// That of the only component.
    fn ac_table(&self) -> Result<&Codes, Fault> {
        need(&self.parts[0].ac)
    }
}

fn need(codes: &Result<Arc<Codes>, u8>) -> Result<&Codes, Fault> {
    codes.as_deref().map_err(|&number| Fault::NoCodeTable(number))
}

/// What one block leaves to the next; a restart marker clears it.
#[derive(Debug, Default)]
struct Memory {
    /// The last DC coefficient of each part of the scan.
    dc: [i16; 4],
    /// How many blocks, the next one included, have no further values in this band.
    end_of_band_run: u32,
}

/// A block that is to be decoded: the number of its part in the scan, and where it lies in the component.
struct Block<'a> {
    part: usize,
    component: &'a mut Component,
    at: (usize, usize),
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn coefficients(self) -> &'a mut [i16; 64] {
        self.component.coefficients_at(self.at)
    }
}

/// What a scan holds for each block.
trait Content {
    fn decode(&self, block: Block, bits: &mut Bits, memory: &mut Memory) -> Result<(), Fault>;
}

/// All of a sequential image: for each part, the codes of DC and AC and the quantisation.
struct Sequential<'a>(Vec<(&'a Codes, &'a Codes, [u16; 64])>);

/// DC coefficients down to a bit: the codes of each part, and the bit.
struct DcFirst<'a>(Vec<&'a Codes>, u32);

/// One more bit of the DC coefficients.
struct DcRefine(u32);

/// A band of AC coefficients down to a bit.
struct AcFirst<'a>(&'a Codes, Range<usize>, u32);

/// One more bit of a band of AC coefficients.
struct AcRefine<'a>(&'a Codes, Range<usize>, u32);

impl Content for Sequential<'_> {
    #[inline(always)]
    fn decode(&self, block: Block, bits: &mut Bits, memory: &mut Memory) -> Result<(), Fault> {
        let (dc_codes, ac_codes, quantization) = &self.0[block.part];
        let mut coefficients = [0; 64];
        coefficients[0] = next_dc(bits, dc_codes, &mut memory.dc[block.part])?;
        // In a copy, which the compiler keeps in registers.
        let mut local = *bits;
        let flat = all_ac(&mut local, ac_codes, &mut coefficients);
        *bits = local;
        let flat = flat?;
        let (samples, stride) = block.component.samples_at(block.at);
        if flat {
            idct::transform_flat(coefficients[0], quantization[0], samples, stride);
        } else {
            idct::transform(&coefficients, quantization, samples, stride);
        }
        Ok(())
    }
}

impl Content for DcFirst<'_> {
    #[inline(always)]
    fn decode(&self, block: Block, bits: &mut Bits, memory: &mut Memory) -> Result<(), Fault> {
        let dc = next_dc(bits, self.0[block.part], &mut memory.dc[block.part])?;
        block.coefficients()[0] = dc << self.1;
        Ok(())
    }
}

impl Content for DcRefine {
    #[inline(always)]
    fn decode(&self, block: Block, bits: &mut Bits, _: &mut Memory) -> Result<(), Fault> {
        block.coefficients()[0] |= i16::from(bits.bit()) << self.0;
        Ok(())
    }
}

impl Content for AcFirst<'_> {
    #[inline(always)]
    fn decode(&self, block: Block, bits: &mut Bits, memory: &mut Memory) -> Result<(), Fault> {
        ac_first(bits, self.0, block.coefficients(), self.1.clone(), self.2, memory)
    }
}

impl Content for AcRefine<'_> {
    #[inline(always)]
    fn decode(&self, block: Block, bits: &mut Bits, memory: &mut Memory) -> Result<(), Fault> {
        ac_refine(bits, self.0, block.coefficients(), self.1.clone(), 1 << self.2, memory)
    }
}

/// Decoding of one scan.
pub(super) struct Decode<'a, 'b> {
    pub frame: &'a mut Frame,
    pub scan: &'a Scan,
    pub bits: &'a mut Bits<'b>,
}

impl Kernel for Decode<'_, '_> {
    type Output = Result<(), Fault>;

    #[inline(always)]
    fn run(self) -> Result<(), Fault> {
        let Self { frame, scan, bits } = self;
        frame.expect(scan);
        let bit = scan.low.into();
        let band = usize::from(*scan.band.start())..usize::from(*scan.band.end()) + 1;
        match (frame.progressive, band.start, scan.high) {
            (false, ..) => each_block(frame, scan, bits, &scan.sequential(frame)?),
            (true, 0, 0) => each_block(frame, scan, bits, &DcFirst(scan.dc_tables()?, bit)),
            (true, 0, _) => each_block(frame, scan, bits, &DcRefine(bit)),
            (true, _, 0) => each_block(frame, scan, bits, &AcFirst(scan.ac_table()?, band, bit)),
            (true, ..) => each_block(frame, scan, bits, &AcRefine(scan.ac_table()?, band, bit)),
        }
    }
}

/// Decodes the blocks in the order of the data, and takes out restart markers.
#[inline(always)]
fn each_block(frame: &mut Frame, scan: &Scan, bits: &mut Bits, content: &impl Content) -> Result<(), Fault> {
    // A component that comes alone is not filled up to whole MCUs.
    let alone = scan.parts.len() == 1;
    let first = &frame.components[scan.parts[0].component];
    let (mcus_across, mcus_down) = match alone {
        true => (first.width.div_ceil(SIDE), first.height.div_ceil(SIDE)),
        false => (frame.mcus_across(), frame.mcus_down()),
    };
    let mut memory = Memory::default();
    for mcu in 0..mcus_across * mcus_down {
        if scan.restart_interval > 0 && mcu > 0 && mcu % scan.restart_interval == 0 {
            bits.restart(marker::RESTART + ((mcu / scan.restart_interval - 1) % 8) as u8)?;
            memory = Memory::default();
        }
        let (mcu_x, mcu_y) = (mcu % mcus_across, mcu / mcus_across);
        for (number, part) in scan.parts.iter().enumerate() {
            let component = &mut frame.components[part.component];
            let (across, down) = if alone { (1, 1) } else { (component.across, component.down) };
            for y in mcu_y * down..(mcu_y + 1) * down {
                for x in mcu_x * across..(mcu_x + 1) * across {
                    let block = Block { part: number, component: &mut *component, at: (x, y) };
                    if let Err(fault) = content.decode(block, bits, &mut memory) {
                        // The zeros behind the end of the data may look like anything.
                        return bits.check().and(Err(fault));
                    }
                }
            }
        }
        bits.check()?;
    }
    Ok(())
}

/// A DC coefficient, which is stored as the difference from the block before.
#[inline(always)]
fn next_dc(bits: &mut Bits, codes: &Codes, last: &mut i16) -> Result<i16, Fault> {
    *last = last.wrapping_add(bits.next(codes)?.value as i16);
    Ok(*last)
}

/// The AC coefficients of a block that is all 0 so far; returns whether they all stay so.
#[inline(always)]
fn all_ac(bits: &mut Bits, codes: &Codes, block: &mut [i16; 64]) -> Result<bool, Fault> {
    let mut at = 1;
    let mut flat = true;
    while at < 64 {
        let Coded { run, size, value } = bits.next(codes)?;
        if size == 0 && run < SIXTEEN_ZEROS {
            break;
        }
        at += run as usize;
        let place = *ZIGZAG.get(at).ok_or(Fault::Overfull)?;
        block[usize::from(place & 63)] = value as i16;
        flat = false;
        at += 1;
    }
    Ok(flat)
}

/// A band of coefficients that is all 0 so far, down to bit `low`.
fn ac_first(
    bits: &mut Bits,
    codes: &Codes,
    block: &mut [i16; 64],
    band: Range<usize>,
    low: u32,
    memory: &mut Memory,
) -> Result<(), Fault> {
    if memory.end_of_band_run > 0 {
        memory.end_of_band_run -= 1;
        return Ok(());
    }
    let mut at = band.start;
    while at < band.end {
        let Coded { run, size, value } = bits.next(codes)?;
        if size == 0 && run < SIXTEEN_ZEROS {
            memory.end_of_band_run = (1 << run) + bits.take(run) - 1;
            break;
        }
        at += run as usize;
        if size > 0 {
            if at >= band.end {
                return Err(Fault::Overfull);
            }
            block[usize::from(ZIGZAG[at])] = (value << low) as i16;
        }
        at += 1;
    }
    Ok(())
}

/// One more bit of a band: `bit` as a number. New values are ±`bit`; runs count only what was 0 before.
fn ac_refine(
    bits: &mut Bits,
    codes: &Codes,
    block: &mut [i16; 64],
    band: Range<usize>,
    bit: i16,
    memory: &mut Memory,
) -> Result<(), Fault> {
    let mut at = band.start;
    while memory.end_of_band_run == 0 && at < band.end {
        let Coded { run, size, value } = bits.next(codes)?;
        if size == 0 && run < SIXTEEN_ZEROS {
            memory.end_of_band_run = (1 << run) + bits.take(run);
            break;
        }
        if size > 1 {
            return Err(Fault::Code);
        }
        at = refine_known(bits, block, at..band.end, bit, run);
        if size > 0 {
            if at >= band.end {
                return Err(Fault::Overfull);
            }
            block[usize::from(ZIGZAG[at])] = bit * value as i16;
        }
        at += 1;
    }
    if memory.end_of_band_run > 0 {
        memory.end_of_band_run -= 1;
        refine_known(bits, block, at..band.end, bit, u32::MAX);
    }
    Ok(())
}

/// Reads one bit for each coefficient that is not 0, and passes `zeros` others; returns where it stopped: at the next 0,
/// or behind the band.
fn refine_known(bits: &mut Bits, block: &mut [i16; 64], band: Range<usize>, bit: i16, mut zeros: u32) -> usize {
    for at in band.clone() {
        let coefficient = &mut block[usize::from(ZIGZAG[at])];
        if *coefficient == 0 {
            if zeros == 0 {
                return at;
            }
            zeros -= 1;
        } else if bits.bit() && *coefficient & bit == 0 {
            *coefficient = coefficient.wrapping_add(bit * coefficient.signum());
        }
    }
    band.end
}
