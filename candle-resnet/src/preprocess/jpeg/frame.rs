//! An image's components while they are being decoded: their sizes, coefficients and samples.

use super::{fault::Fault, idct, scan::Scan, segments::marker};
use crate::preprocess::vector::{Kernel, dispatch};

/// Samples along a side of a block.
pub(super) const SIDE: usize = 8;

/// What the header of an image says, and what its scans have filled in.
#[derive(Debug)]
pub(super) struct Frame {
    pub width: usize,
    pub height: usize,
    pub progressive: bool,
    /// The largest sampling factors of all components: the blocks of one MCU at the image's resolution.
    pub across: usize,
    pub down: usize,
    pub components: Vec<Component>,
}

/// One colour channel, perhaps at a lower resolution than the image.
#[derive(Debug)]
pub(super) struct Component {
    pub id: u8,
    /// Blocks of one MCU.
    pub across: usize,
    pub down: usize,
    pub quantization_number: u8,
    pub quantization: Option<[u16; 64]>,
    /// Samples that belong to the image; those behind them fill the last blocks.
    pub width: usize,
    pub height: usize,
    /// Blocks, filled up to whole MCUs.
    pub blocks_across: usize,
    pub blocks_down: usize,
    /// Of a progressive image, block by block, in rows.
    pub coefficients: Vec<[i16; 64]>,
    /// `blocks_down × 8` rows of `blocks_across × 8`.
    pub samples: Vec<u8>,
    /// Whether any scan was about it.
    pub seen: bool,
}

/// What `SOF` says of a component: identifier, sampling factors, quantisation table.
type Description = [u8; 3];

impl Frame {
    /// From the content of a start-of-frame segment.
    pub(super) fn new(code: u8, segment: &[u8]) -> Result<Self, Fault> {
        let (&[precision, h1, h0, w1, w0, count], descriptions) = segment.split_first_chunk().ok_or(Fault::Segment)?;
        if precision != 8 {
            return Err(Fault::Precision(precision));
        }
        let [height, width] = [[h1, h0], [w1, w0]].map(|bytes| usize::from(u16::from_be_bytes(bytes)));
        if width == 0 || height == 0 {
            return Err(Fault::NoSize);
        }
        let (descriptions, _) = descriptions.as_chunks::<3>();
        let descriptions = descriptions.get(..count.into()).ok_or(Fault::Segment)?;
        let progressive = code == marker::PROGRESSIVE;
        let mut frame = Self { width, height, progressive, across: 1, down: 1, components: Vec::new() };
        frame.describe(descriptions)?;
        Ok(frame)
    }

    fn describe(&mut self, descriptions: &[Description]) -> Result<(), Fault> {
        if !matches!(descriptions.len(), 1 | 3 | 4) {
            return Err(Fault::Components(descriptions.len()));
        }
        let factors = |description: &Description| (usize::from(description[1] >> 4), usize::from(description[1] & 15));
        for (across, down) in descriptions.iter().map(factors) {
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(Fault::Sampling(across, down));
            }
            (self.across, self.down) = (self.across.max(across), self.down.max(down));
        }
        for description in descriptions {
            let (across, down) = factors(description);
            if !self.across.is_multiple_of(across) || !self.down.is_multiple_of(down) {
                return Err(Fault::Sampling(across, down));
            }
            self.components.push(Component {
                id: description[0],
                across,
                down,
                quantization_number: description[2],
                quantization: None,
                width: (self.width * across).div_ceil(self.across),
                height: (self.height * down).div_ceil(self.down),
                blocks_across: self.mcus_across() * across,
                blocks_down: self.mcus_down() * down,
                coefficients: Vec::new(),
                samples: Vec::new(),
                seen: false,
            });
        }
        Ok(())
    }

    pub(super) fn mcus_across(&self) -> usize {
        self.width.div_ceil(SIDE * self.across)
    }

    pub(super) fn mcus_down(&self) -> usize {
        self.height.div_ceil(SIDE * self.down)
    }

    /// Makes room for what `scan` tells.
    pub(super) fn expect(&mut self, scan: &Scan) {
        for part in &scan.parts {
            let component = &mut self.components[part.component];
            component.seen = true;
            if self.progressive { component.reserve_coefficients() } else { component.reserve_samples() }
        }
    }

    /// Turns coefficients that are still there into samples.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        for component in &mut self.components {
            if !component.seen {
                return Err(Fault::NoData(component.id));
            }
            if self.progressive {
                component.reserve_samples();
                dispatch(Transform(component));
                component.coefficients = Vec::new();
            }
        }
        Ok(())
    }
}

impl Component {
    fn reserve_samples(&mut self) {
        if self.samples.is_empty() {
            self.samples = vec![0; self.blocks_across * self.blocks_down * SIDE * SIDE];
        }
    }

    fn reserve_coefficients(&mut self) {
        if self.coefficients.is_empty() {
            self.coefficients = vec![[0; 64]; self.blocks_across * self.blocks_down];
        }
    }

    /// Samples in a row, those that fill the last block included.
    pub(super) fn stride(&self) -> usize {
        self.blocks_across * SIDE
    }

    /// The samples of row `y` that belong to the image.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride()..][..self.width]
    }

    /// The coefficients of block (`x`, `y`).
    #[inline(always)]
    pub(super) fn coefficients_at(&mut self, (x, y): (usize, usize)) -> &mut [i16; 64] {
        &mut self.coefficients[y * self.blocks_across + x]
    }

    /// The samples from the upper left one of block (`x`, `y`) on, and the length of a row of them.
    #[inline(always)]
    pub(super) fn samples_at(&mut self, (x, y): (usize, usize)) -> (&mut [u8], usize) {
        let stride = self.stride();
        (&mut self.samples[(y * stride + x) * SIDE..], stride)
    }
}

/// Inverse transforms of all blocks of a component.
struct Transform<'a>(&'a mut Component);

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(component) = self;
        let quantization = component.quantization.unwrap_or([0; 64]);
        let stride = component.stride();
        let rows = component.samples.chunks_exact_mut(stride * SIDE);
        for (samples, blocks) in rows.zip(component.coefficients.chunks_exact(component.blocks_across)) {
            for (x, block) in blocks.iter().enumerate() {
                idct::transform(block, &quantization, &mut samples[x * SIDE..], stride);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segment: &[u8]) -> Result<Frame, Fault> {
        Frame::new(marker::BASELINE, segment)
    }

    #[test]
    fn components_are_rounded_up_and_blocks_fill_whole_mcus() {
        let frame = frame(&[8, 0, 17, 0, 35, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x12, 1]).unwrap();
        assert_eq!((frame.width, frame.height, frame.mcus_across(), frame.mcus_down()), (35, 17, 3, 2));
        let sizes = |c: &Component| (c.width, c.height, c.blocks_across, c.blocks_down);
        assert_eq!(
            frame.components.iter().map(sizes).collect::<Vec<_>>(),
            [(35, 17, 6, 4), (18, 9, 3, 2), (18, 17, 3, 4)]
        );
    }

    #[test]
    fn frames_that_cannot_be_shown_are_refused_with_the_reason() {
        let refused = |segment: &[u8]| frame(segment).unwrap_err().to_string();
        assert_eq!(refused(&[12, 0, 8, 0, 8, 1, 1, 0x11, 0]), "12 bits a sample are not supported");
        assert_eq!(refused(&[8, 0, 0, 0, 8, 1, 1, 0x11, 0]), "its size is 0, which its coded data would have to tell");
        assert_eq!(refused(&[8, 0, 8, 0, 8, 2, 1, 0x11, 0, 2, 0x11, 0]), "2 components, expected 1, 3 or 4");
        let sampling = "sampling factors 5×1 are out of range or do not divide the image's";
        assert_eq!(refused(&[8, 0, 8, 0, 8, 1, 1, 0x51, 0]), sampling);
        assert_eq!(frame(&[8, 0, 8, 0, 8, 3, 1, 0x31, 0, 2, 0x21, 0, 3, 0x11, 0]).unwrap_err(), Fault::Sampling(2, 1));
        assert_eq!(frame(&[8, 0, 8, 0, 8, 3, 1, 0x11, 0]).unwrap_err(), Fault::Segment);
        assert_eq!(frame(&[8, 0]).unwrap_err(), Fault::Segment);
    }
}
