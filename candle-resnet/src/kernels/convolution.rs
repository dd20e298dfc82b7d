//! Convolutions of any kernel, stride, dilation and number of groups, as matrix products over pixels.
//!
//! A 1×1 convolution of stride 1 reads the map as it lies. Any other first copies the pixels that each tap sees into a panel
//! of that layout: one copied vector feeds sixteen vector multiplications for each output block.

use std::ops::Range;

use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable, blocks_of};
use super::product::{Finish, Product, is_heavy, product};

/// A convolution's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConvolutionShape {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Side of the square kernel.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Zeros before the first row and column.
    pub(crate) padding: usize,
    /// Of the input.
    pub(crate) input: Extent,
    /// Of the output.
    pub(crate) output: Extent,
    pub(crate) groups: usize,
}

impl ConvolutionShape {
    /// Whether the input is read where it lies.
    pub(crate) fn in_place(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Values of an input block that are not always zero.
    pub(crate) fn length(&self) -> usize {
        self.in_channels.min(LANES)
    }

    /// Input blocks that an output block reads.
    pub(crate) fn input_blocks(&self, output_block: usize) -> Range<usize> {
        input_blocks((self.in_channels, self.out_channels), self.groups, output_block)
    }

    /// Runs of the reduction for an output block.
    pub(crate) fn segments(&self, output_block: usize) -> usize {
        self.input_blocks(output_block).len() * self.kernel * self.kernel
    }

    /// Floats of the panel for `pixels` pixels; 0 where none is needed.
    pub(crate) fn panel(&self, pixels: usize) -> usize {
        if self.in_place() { 0 } else { self.segments(0) * panel_stride(pixels) }
    }
}

/// Input blocks that an output block of a convolution reads: all, or those of its groups.
pub(super) fn input_blocks(channels: (usize, usize), groups: usize, output_block: usize) -> Range<usize> {
    if groups == 1 {
        return 0..blocks_of(channels.0);
    }
    let (into, out) = (channels.0 / groups, channels.1 / groups);
    let first = output_block * LANES / out;
    let last = ((output_block + 1) * LANES).min(channels.1).div_ceil(out);
    first * into / LANES..(last * into).div_ceil(LANES)
}

/// Floats from one segment of a panel to the next: off multiples of 4096 bytes, which share cache sets.
fn panel_stride(pixels: usize) -> usize {
    let floats = pixels * LANES;
    if floats.is_multiple_of(1024) { floats + LANES } else { floats }
}

/// A part of a convolution of one image.
pub(crate) struct Convolve<'a> {
    pub(crate) shape: &'a ConvolutionShape,
    /// (blocks, pixels, 16).
    pub(crate) input: &'a [f32],
    /// (columns, input blocks, kernel, kernel, length, blocks of a column, 16).
    pub(crate) weights: &'a [f32],
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// (blocks, 16).
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; (blocks, pixels, 16).
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) relu: bool,
    /// Output pixels that this call computes.
    pub(crate) pixels: Range<usize>,
    /// Columns that this call computes.
    pub(crate) range: Range<usize>,
    /// Where input is gathered; [`ConvolutionShape::panel`] floats.
    pub(crate) panel: &'a mut [f32],
    /// Floats before the image in `output`.
    pub(crate) image: usize,
    /// (images, blocks, pixels, 16).
    pub(crate) output: Writable<'a>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same part.
#[inline(always)]
pub(super) unsafe fn convolve<V: Lanes>(call: &mut Convolve) {
    let shape = *call.shape;
    let rows = call.pixels.len();
    let grouped = shape.groups > 1;
    // SAFETY: passed on.
    unsafe {
        if !grouped && !shape.in_place() {
            gather::<V>(call, shape.input_blocks(0));
        }
        for column in call.range.clone() {
            let block = column * call.column_blocks;
            if grouped && !shape.in_place() {
                gather::<V>(call, shape.input_blocks(block));
            }
            let segments = shape.segments(block);
            let first = (block * shape.output.pixels() + call.pixels.start) * LANES;
            let (input, segment_stride) = if shape.in_place() {
                let blocks = shape.input_blocks(block);
                let plane = shape.input.pixels() * LANES;
                (call.input.as_ptr().add(blocks.start * plane + call.pixels.start * LANES), plane)
            } else {
                (call.panel.as_ptr(), panel_stride(rows))
            };
            product::<V>(&Product {
                input,
                rows,
                segments,
                segment_stride,
                length: shape.length(),
                weights: call.weights.as_ptr().add(column * segments * shape.length() * call.column_blocks * LANES),
                output: call.output.at(call.image + first),
                block_stride: shape.output.pixels() * LANES,
                blocks: call.column_blocks,
                heavy: is_heavy(call.weights),
                accumulate: false,
                finish: Finish {
                    bias: call.bias.as_ptr().add(block * LANES),
                    residual: call.residual.map_or(std::ptr::null(), |residual| residual.as_ptr().add(first)),
                    relu: call.relu,
                },
            });
        }
    }
}

/// Copies what each tap sees at the call's pixels: (blocks, kernel, kernel, pixels, 16).
#[inline(always)]
unsafe fn gather<V: Lanes>(call: &mut Convolve, blocks: Range<usize>) {
    let shape = *call.shape;
    let stride = panel_stride(call.pixels.len());
    let mut to = call.panel.as_mut_ptr();
    for block in blocks {
        // SAFETY: the block is one of the input's.
        let plane = unsafe { call.input.as_ptr().add(block * shape.input.pixels() * LANES) };
        for tap_row in 0..shape.kernel {
            for tap_column in 0..shape.kernel {
                // SAFETY: the panel has room for every segment.
                unsafe {
                    gather_tap::<V>(&shape, plane, (tap_row, tap_column), &call.pixels, to);
                    to = to.add(stride);
                }
            }
        }
    }
}

/// What one tap of the kernel sees at `pixels`.
#[inline(always)]
unsafe fn gather_tap<V: Lanes>(
    shape: &ConvolutionShape,
    plane: *const f32,
    (tap_row, tap_column): (usize, usize),
    pixels: &Range<usize>,
    mut to: *mut f32,
) {
    let width = shape.output.width;
    let mut pixel = pixels.start;
    while pixel < pixels.end {
        let (row, column) = (pixel / width, pixel % width);
        let columns = column..(column + pixels.end - pixel).min(width);
        pixel += columns.len();
        // Before the first row and column, these wrap to more than any size.
        let y = (row * shape.stride + tap_row * shape.dilation).wrapping_sub(shape.padding);
        for column in columns {
            let x = (column * shape.stride + tap_column * shape.dilation).wrapping_sub(shape.padding);
            // SAFETY: read only where the pixel is one of the map's.
            unsafe {
                let value = if y < shape.input.height && x < shape.input.width {
                    V::load(plane.add((y * shape.input.width + x) * LANES))
                } else {
                    V::splat(0.0)
                };
                value.store(to);
                to = to.add(LANES);
            }
        }
    }
}
