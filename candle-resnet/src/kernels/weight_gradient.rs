//! The gradient of a convolution's weights: for each pair of channels and each tap, a sum over pixels.
//!
//! A matrix product whose reduction runs over pixels: sixteen input channels of a pixel are one vector, as a map has them, and each output
//! channel's gradient at that pixel is spread over the lanes. Where the kernel is not 1×1 or there is a stride, one input block at a
//! time is copied into planes with a border, one for each residue of the stride, so that every tap is an offset.

use std::ops::Range;

use super::convolution::ConvolutionShape;
use super::lanes::{LANES, Lanes};
use super::map::Extent;

/// Bytes of the input's copy and the gradient that should stay in the second-level cache.
const CACHED_BYTES: usize = 384 << 10;
/// Columns of a tile, at most.
const MOST_COLUMNS: usize = 3;

/// Where the taps of a convolution see an input block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planes {
    stride: usize,
    /// Whether the map is read as it lies.
    in_place: bool,
    /// Of each plane: for stride 1 of the bordered map, else of those of its pixels that share residues of row and column.
    extent: Extent,
    /// Zeros before the first row and column of the bordered map.
    padding: usize,
    input: Extent,
    output: Extent,
    /// Where each tap sees the first output pixel, in values.
    taps: Vec<usize>,
}

impl Planes {
    pub(super) fn new(shape: &ConvolutionShape) -> Planes {
        let &ConvolutionShape { kernel, stride, dilation, padding, input, output, .. } = shape;
        let reach = (kernel - 1) * dilation / stride;
        let extent = Extent { height: output.height + reach, width: output.width + reach };
        let place = |tap: usize| (tap * dilation % stride, tap * dilation / stride);
        let taps = (0..kernel * kernel).map(|tap| {
            let ((plane_row, row), (plane_column, column)) = (place(tap / kernel), place(tap % kernel));
            let plane = plane_row * stride + plane_column;
            (plane * extent.pixels() + row * extent.width + column) * LANES
        });
        Planes { stride, in_place: shape.in_place(), extent, padding, input, output, taps: taps.collect() }
    }

    /// Values of the copy of an input block; 0 where it is read in place.
    pub(super) fn values(&self) -> usize {
        if self.in_place { 0 } else { self.stride * self.stride * self.extent.values(1) }
    }

    /// Where each tap of each of `blocks` input blocks sees the first output pixel.
    pub(super) fn columns(&self, blocks: usize) -> Vec<usize> {
        let of_block = if self.in_place { self.input.values(1) } else { self.values() };
        (0..blocks).flat_map(|block| self.taps.iter().map(move |tap| block * of_block + tap)).collect()
    }

    /// Copies an input block; what lies beyond the map is zero there already.
    fn copy(&self, block: &[f32], to: &mut [f32]) {
        let (stride, plane) = (self.stride, self.extent.values(1));
        for y in 0..self.input.height {
            let (row, plane_row) = ((y + self.padding) / stride, (y + self.padding) % stride);
            if row >= self.extent.height {
                continue;
            }
            for start in 0..stride.min(self.input.width) {
                let (column, plane_column) = ((start + self.padding) / stride, (start + self.padding) % stride);
                let first = (plane_row * stride + plane_column) * plane + (row * self.extent.width + column) * LANES;
                let room = (self.extent.width - column.min(self.extent.width)) * LANES;
                let from = &block[(y * self.input.width + start) * LANES..(y + 1) * self.input.width * LANES];
                let to = &mut to[first..first + room];
                if stride == 1 {
                    let seen = from.len().min(room);
                    to[..seen].copy_from_slice(&from[..seen]);
                    continue;
                }
                let pixels = from.chunks(LANES * stride).map(|pixel| &pixel[..LANES]);
                to.chunks_exact_mut(LANES).zip(pixels).for_each(|(to, pixel)| to.copy_from_slice(pixel));
            }
        }
    }

    /// Runs of output pixels that are read together, and how to go from one to the next.
    fn bands(&self, blocks: usize) -> impl Iterator<Item = Lines> {
        let width = if self.in_place { self.output.pixels() } else { self.output.width };
        let lines = if self.in_place { 1 } else { self.output.height };
        let of_row = (width + blocks * self.stride * self.stride * self.extent.width) * LANES * size_of::<f32>();
        let (height, each) = match self.in_place {
            true => (1, (CACHED_BYTES / ((1 + blocks) * LANES * size_of::<f32>())).min(width)),
            false => ((CACHED_BYTES / of_row).clamp(1, lines), width),
        };
        let (output_row, input_row) = (width * LANES, self.extent.width * LANES);
        (0..lines).step_by(height).flat_map(move |line| {
            (0..width).step_by(each).map(move |pixel| Lines {
                gradient: line * output_row + pixel * LANES,
                input: line * input_row + pixel * LANES,
                count: height.min(lines - line),
                width: each.min(width - pixel),
                gradient_stride: output_row,
                input_stride: input_row,
            })
        })
    }
}

/// Runs of output pixels.
#[derive(Clone, Copy)]
struct Lines {
    /// Where the first lies in a block of the gradient.
    gradient: usize,
    /// What to add to a column's offset.
    input: usize,
    count: usize,
    /// Pixels of each.
    width: usize,
    gradient_stride: usize,
    input_stride: usize,
}

/// Maps and the gradient of what a convolution made of them → the gradient of some of its weights.
pub(crate) struct WeightGradient<'a> {
    pub(super) planes: &'a Planes,
    /// [`Planes::columns`] for as many blocks as `blocks` has.
    pub(super) columns: &'a [usize],
    /// (images, all input blocks, pixels, 16).
    pub(super) input: &'a [f32],
    pub(super) input_blocks: usize,
    /// (images, all output blocks, pixels, 16).
    pub(super) gradient: &'a [f32],
    pub(super) output_blocks: usize,
    pub(super) images: Range<usize>,
    /// Input blocks whose weights are meant.
    pub(super) blocks: Range<usize>,
    /// Output blocks whose weights are meant.
    pub(super) outputs: Range<usize>,
    /// [`Planes::values`] for each block, zero where the border is.
    pub(super) copy: &'a mut [f32],
    /// (outputs, columns, 16 out, 16 in), to which is added.
    pub(super) sums: &'a mut [f32],
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say.
#[inline(always)]
pub(super) unsafe fn weight_gradient<V: Lanes>(call: &mut WeightGradient) {
    // SAFETY: passed on.
    unsafe { if V::BLOCKS == 2 { images::<V, 8, MOST_COLUMNS>(call) } else { images::<V, 4, 1>(call) } }
}

#[inline(always)]
unsafe fn images<V: Lanes, const R: usize, const MOST: usize>(call: &mut WeightGradient) {
    let planes = call.planes;
    let (of_input, of_output) = (planes.input.values(1), planes.output.values(1));
    for image in call.images.clone() {
        let first = (image * call.input_blocks + call.blocks.start) * of_input;
        let blocks = &call.input[first..first + call.blocks.len() * of_input];
        if !planes.in_place {
            let copies = call.copy.chunks_exact_mut(planes.values());
            blocks.chunks_exact(of_input).zip(copies).for_each(|(block, copy)| planes.copy(block, copy));
        }
        let input = if planes.in_place { blocks.as_ptr() } else { call.copy.as_ptr() };
        for lines in planes.bands(call.blocks.len()) {
            for (position, output) in call.outputs.clone().enumerate() {
                let plane = (image * call.output_blocks + output) * of_output + lines.gradient;
                let of_block = position * call.columns.len() * LANES * LANES;
                // SAFETY: the block's gradient, its sums, and columns lie within their buffers.
                unsafe {
                    let gradient = call.gradient.as_ptr().add(plane);
                    let sums = call.sums.as_mut_ptr().add(of_block);
                    block::<V, R, MOST>(&lines, gradient, (input.add(lines.input), call.columns), sums);
                }
            }
        }
    }
}

/// All columns of one output block.
#[inline(always)]
unsafe fn block<V: Lanes, const R: usize, const MOST: usize>(
    lines: &Lines,
    gradient: *const f32,
    (input, columns): (*const f32, &[usize]),
    sums: *mut f32,
) {
    for (index, columns) in columns.chunks(MOST).enumerate() {
        for row in (0..LANES).step_by(R) {
            // SAFETY: passed on.
            unsafe {
                let gradient = gradient.add(row);
                let sums = sums.add((index * MOST * LANES + row) * LANES);
                match columns.len() {
                    1 => tile::<V, R, 1>(lines, gradient, (input, columns), sums),
                    2 if MOST > 1 => tile::<V, R, 2>(lines, gradient, (input, columns), sums),
                    _ if MOST > 2 => tile::<V, R, 3>(lines, gradient, (input, columns), sums),
                    _ => {} // There are no more than `MOST`.
                }
            }
        }
    }
}

/// `R` output channels times `C` columns.
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const C: usize>(
    lines: &Lines,
    gradient: *const f32,
    (input, columns): (*const f32, &[usize]),
    sums: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut tile = [[V::splat(0.0); C]; R];
        for line in 0..lines.count {
            let mut gradient = gradient.add(line * lines.gradient_stride);
            let mut inputs = [input; C];
            for c in 0..C {
                inputs[c] = input.add(columns[c] + line * lines.input_stride);
            }
            for _ in 0..lines.width {
                let mut values = [V::splat(0.0); C];
                for c in 0..C {
                    values[c] = V::load(inputs[c]);
                    inputs[c] = inputs[c].add(LANES);
                }
                for r in 0..R {
                    let factor = V::splat(*gradient.add(r));
                    for c in 0..C {
                        tile[r][c] = factor.mul_add(values[c], tile[r][c]);
                    }
                }
                gradient = gradient.add(LANES);
            }
        }
        for c in 0..C {
            for r in 0..R {
                let sum = sums.add((c * LANES + r) * LANES);
                V::load(sum).add(tile[r][c]).store(sum);
            }
        }
    }
}
