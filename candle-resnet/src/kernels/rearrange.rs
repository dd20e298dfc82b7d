//! Between the layouts of tensors and of maps; ordinary safe code.

use super::lanes::LANES;
use super::map::{Extent, blocks_of};
use super::stored::Stored;

/// How an image is cut into pixels of a map: each `factor × factor` pixels become one.
///
/// With a factor of 2, a convolution of stride 2 over `channels` becomes one of stride 1 over `4 * channels`; channel
/// `(row * factor + column) * channels + c` is channel `c` at that row and column of the square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Unfolding {
    pub(crate) channels: usize,
    pub(crate) factor: usize,
    /// Of the image.
    pub(crate) extent: Extent,
}

impl Unfolding {
    /// Channels of the map.
    pub(crate) fn unfolded_channels(&self) -> usize {
        self.channels * self.factor * self.factor
    }

    /// Of the map.
    pub(crate) fn unfolded_extent(&self) -> Extent {
        Extent { height: self.extent.height.div_ceil(self.factor), width: self.extent.width.div_ceil(self.factor) }
    }

    /// One image (channels, height, width) → one image of a map. What lies beyond the image stays as it is: zero.
    pub(crate) fn unfold<S: Stored>(&self, image: &[f32], map: &mut [S]) {
        let (factor, extent) = (self.factor, self.unfolded_extent());
        let plane = extent.pixels() * LANES;
        for (channel, values) in image.chunks_exact(self.extent.pixels()).enumerate() {
            for (y, row) in values.chunks_exact(self.extent.width).enumerate() {
                for start in 0..factor {
                    let unfolded = (y % factor * factor + start) * self.channels + channel;
                    let first = unfolded / LANES * plane + y / factor * extent.width * LANES + unfolded % LANES;
                    let to = map[first..].iter_mut().step_by(LANES);
                    for (to, &value) in to.zip(row.iter().skip(start).step_by(factor)) {
                        *to = S::of(value);
                    }
                }
            }
        }
    }
}

/// One image of a map → (channels, height, width).
pub(crate) fn refold<S: Stored>(map: &[S], channels: usize, extent: Extent, image: &mut [f32]) {
    for (channel, values) in image.chunks_exact_mut(extent.pixels()).take(channels).enumerate() {
        let first = channel / LANES * extent.pixels() * LANES + channel % LANES;
        for (value, &from) in values.iter_mut().zip(map[first..].iter().step_by(LANES)) {
            *value = from.value();
        }
    }
}

/// Every `stride`-th pixel of one image, with `padding` zero channels before the first; `to` is zero before.
pub(crate) fn shift_channels<S: Stored>(
    from: &[S],
    channels: usize,
    extent: Extent,
    stride: usize,
    padding: usize,
    to: &mut [S],
) {
    each_shifted(channels, extent, stride, padding, |source, target| to[target] = from[source]);
}

/// The way back of [`shift_channels`]: adds to `to`, of the extent `extent`, what its pixels became.
pub(crate) fn add_shifted_back(
    from: &[f32],
    channels: usize,
    extent: Extent,
    stride: usize,
    padding: usize,
    to: &mut [f32],
) {
    each_shifted(channels, extent, stride, padding, |source, target| to[source] += from[target]);
}

/// Where a value lies before and after its channel is shifted.
fn each_shifted(channels: usize, extent: Extent, stride: usize, padding: usize, mut visit: impl FnMut(usize, usize)) {
    let output = Extent { height: extent.height.div_ceil(stride), width: extent.width.div_ceil(stride) };
    for channel in 0..channels {
        let source = channel / LANES * extent.pixels() * LANES + channel % LANES;
        let shifted = channel + padding;
        let target = shifted / LANES * output.pixels() * LANES + shifted % LANES;
        for row in 0..output.height {
            for column in 0..output.width {
                let from = source + (row * extent.width + column) * stride * LANES;
                visit(from, target + (row * output.width + column) * LANES);
            }
        }
    }
}

/// Values of each channel, filled up with zeros to whole blocks.
pub(crate) fn padded(values: &[f32]) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(blocks_of(values.len()) * LANES, 0.0);
    padded
}
