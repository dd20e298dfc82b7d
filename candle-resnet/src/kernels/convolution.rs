//! Convolutions of any kernel, stride, dilation and number of groups, as matrix products over pixels.
//!
//! A 1×1 convolution of stride 1 reads the map as it lies. Any other first copies the pixels that each tap sees into a panel
//! of that layout: one copied vector feeds sixteen vector multiplications for each output block.

use std::ops::Range;

use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable, blocks_of};
use super::product::{Finish, Product, is_heavy, product};
use super::stored::{Stored, filled_up};

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
    pub(crate) fn length<S: Stored>(&self) -> usize {
        filled_up::<S>(self.in_channels.min(LANES))
    }

    /// Input blocks that an output block reads.
    pub(crate) fn input_blocks(&self, output_block: usize) -> Range<usize> {
        input_blocks((self.in_channels, self.out_channels), self.groups, output_block)
    }

    /// Runs of the reduction for an output block.
    pub(crate) fn segments(&self, output_block: usize) -> usize {
        self.input_blocks(output_block).len() * self.kernel * self.kernel
    }

    /// Values of the panel for `pixels` pixels; 0 where none is needed.
    pub(crate) fn panel<S>(&self, pixels: usize) -> usize {
        if self.in_place() { 0 } else { self.segments(0) * panel_stride::<S>(pixels) }
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

/// Values from one segment of a panel to the next: off multiples of 4096 bytes, which share cache sets.
pub(super) fn panel_stride<S>(pixels: usize) -> usize {
    let values = pixels * LANES;
    if (values * size_of::<S>()).is_multiple_of(4096) { values + LANES } else { values }
}

/// A part of a convolution of one image.
pub(crate) struct Convolve<'a, S> {
    pub(crate) shape: &'a ConvolutionShape,
    /// (blocks, pixels, 16).
    pub(crate) input: &'a [S],
    /// (columns, input blocks, kernel, kernel, length / depth, blocks of a column, 16, depth).
    pub(crate) weights: &'a [S],
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// (blocks, 16).
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; (blocks, pixels, 16).
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    /// Output pixels that this call computes.
    pub(crate) pixels: Range<usize>,
    /// Columns that this call computes.
    pub(crate) range: Range<usize>,
    /// Where input is gathered; [`ConvolutionShape::panel`] values.
    pub(crate) panel: &'a mut [S],
    /// [`Stored::sums_apart`] floats.
    pub(crate) sums: &'a mut [f32],
    /// Values before the image in `output`.
    pub(crate) image: usize,
    /// (images, blocks, pixels, 16).
    pub(crate) output: Writable<'a, S>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same part.
#[inline(always)]
pub(super) unsafe fn convolve<V: Lanes, S: Stored>(call: &mut Convolve<S>) {
    let shape = *call.shape;
    let rows = call.pixels.len();
    let grouped = shape.groups > 1;
    // SAFETY: passed on.
    unsafe {
        if !grouped && !shape.in_place() {
            gather(call, shape.input_blocks(0));
        }
        for column in call.range.clone() {
            let block = column * call.column_blocks;
            if grouped && !shape.in_place() {
                gather(call, shape.input_blocks(block));
            }
            let segments = shape.segments(block);
            let first = (block * shape.output.pixels() + call.pixels.start) * LANES;
            let (input, segment_stride) = if shape.in_place() {
                let blocks = shape.input_blocks(block);
                let plane = shape.input.pixels() * LANES;
                (call.input.as_ptr().add(blocks.start * plane + call.pixels.start * LANES), plane)
            } else {
                (call.panel.as_ptr(), panel_stride::<S>(rows))
            };
            let (output, block_stride) = (call.output.at(call.image + first), shape.output.pixels() * LANES);
            product::<V, S, S>(&Product {
                input,
                rows,
                segments,
                segment_stride,
                length: shape.length::<S>(),
                weights: call
                    .weights
                    .as_ptr()
                    .add(column * segments * shape.length::<S>() * call.column_blocks * LANES),
                output,
                block_stride,
                sums: S::sums((output, block_stride), (call.sums.as_mut_ptr(), rows * LANES)),
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
unsafe fn gather<S: Stored>(call: &mut Convolve<S>, blocks: Range<usize>) {
    let shape = *call.shape;
    let stride = panel_stride::<S>(call.pixels.len());
    let mut to = call.panel.as_mut_ptr();
    for block in blocks {
        // SAFETY: the block is one of the input's.
        let plane = unsafe { call.input.as_ptr().add(block * shape.input.pixels() * LANES) };
        for tap_row in 0..shape.kernel {
            for tap_column in 0..shape.kernel {
                // SAFETY: the panel has room for every segment.
                unsafe {
                    gather_tap(&shape, plane, (tap_row, tap_column), &call.pixels, to);
                    to = to.add(stride);
                }
            }
        }
    }
}

/// What one tap of the kernel sees at `pixels`.
#[inline(always)]
unsafe fn gather_tap<S: Stored>(
    shape: &ConvolutionShape,
    plane: *const S,
    (tap_row, tap_column): (usize, usize),
    pixels: &Range<usize>,
    mut to: *mut S,
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
                    plane.add((y * shape.input.width + x) * LANES).cast::<[S; LANES]>().read_unaligned()
                } else {
                    [S::default(); LANES]
                };
                to.cast::<[S; LANES]>().write_unaligned(value);
                to = to.add(LANES);
            }
        }
    }
}
