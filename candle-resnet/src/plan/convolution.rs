//! A convolution of a plan: folded, packed, ready for maps of any size.

use super::Packing;
use super::choice::{Algorithm, Candidate, choose};
use crate::blueprint::ConvNorm;
use crate::kernels::{
    Buffer, ConvolutionShape, Extent, LANES, Layer, Scratch, Stored, Team, Weights, WinogradShape, blocks_of,
    for_convolution, for_groups, for_strassen, for_winograd, padded,
};

/// A convolution's shape, whatever the size of its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Side of the square kernel.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Zeros before the first row and column.
    pub(crate) padding: usize,
    pub(crate) groups: usize,
}

/// What a convolution is packed from.
pub(crate) struct FoldedConvolution {
    /// As in the network: `layer1.0.conv1`.
    pub(crate) name: String,
    pub(crate) geometry: Geometry,
    /// (out, in / groups, kernel, kernel).
    pub(crate) weights: Vec<f32>,
    /// (out): what the weights of each channel are multiplied by.
    pub(crate) scale: Vec<f64>,
    /// (out), or nothing.
    pub(crate) bias: Vec<f64>,
}

/// Weights in the order of their kernel, and all that it asks for.
#[derive(Debug)]
pub(crate) struct PackedConvolution<S: Stored> {
    pub(crate) name: String,
    pub(crate) geometry: Geometry,
    pub(super) algorithm: Algorithm,
    /// Channel blocks of the output that are computed together.
    column_blocks: usize,
    weights: Buffer<S>,
    bias: Buffer,
}

/// The maps of a step.
pub(crate) struct Maps<'a, S> {
    pub(crate) images: usize,
    pub(crate) from: &'a [S],
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    pub(crate) to: &'a mut [S],
}

impl Geometry {
    /// A dense layer on one pixel.
    pub(super) fn dense(inputs: usize, outputs: usize) -> Geometry {
        Geometry {
            in_channels: inputs,
            out_channels: outputs,
            kernel: 1,
            stride: 1,
            dilation: 1,
            padding: 0,
            groups: 1,
        }
    }

    /// The convolution of a layer of a network.
    pub(crate) fn of(unit: &ConvNorm) -> Geometry {
        let &ConvNorm { in_channels, out_channels, kernel, stride, dilation, groups, .. } = unit;
        Geometry { in_channels, out_channels, kernel, stride, dilation, padding: unit.padding(), groups }
    }

    /// Side of the square of pixels that become channels before a convolution of images: 2 if it has stride 2.
    pub(crate) fn unfolding(&self) -> usize {
        if self.stride == 2 && self.kernel % 2 == 1 { 2 } else { 1 }
    }

    /// A convolution of stride 2 → the one of stride 1 that does the same to an image whose 2×2 pixels have become channels.
    ///
    /// Tap k of the kernel sees row `2y + k - p`: in the unfolded image row `y + floor((k - p) / 2)`, and of that its even or odd
    /// half. Some taps of the new kernel see only one half; the rest of them is zero.
    pub(crate) fn unfolded(&self) -> Geometry {
        let (in_channels, kernel) = (4 * self.in_channels, self.kernel.div_ceil(2));
        Geometry { in_channels, kernel, stride: 1, padding: self.padding.div_ceil(2), ..*self }
    }

    /// Where a weight is found among those of the [unfolded](Geometry::unfolded) convolution.
    pub(crate) fn unfolded_place(&self, index: usize) -> usize {
        let new = self.unfolded();
        let place =
            |tap: usize| ((tap + 2 * new.padding - self.padding) / 2, (tap + 2 * new.padding - self.padding) % 2);
        let (kernel, column) = (index / self.kernel, index % self.kernel);
        let (kernel, row) = (kernel / self.kernel, kernel % self.kernel);
        let (out, channel) = (kernel / self.in_channels, kernel % self.in_channels);
        let ((y, odd_row), (x, odd_column)) = (place(row), place(column));
        let channel = (2 * odd_row + odd_column) * self.in_channels + channel;
        ((out * new.in_channels + channel) * new.kernel + y) * new.kernel + x
    }

    /// Number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.out_channels * self.in_channels / self.groups * self.kernel * self.kernel
    }

    /// Of the map that comes out. An even kernel stands for an unfolded one and keeps the size.
    pub(crate) fn output(&self, input: Extent) -> Extent {
        if self.kernel.is_multiple_of(2) {
            return input;
        }
        let window = self.dilation * (self.kernel - 1) + 1;
        let side = |size: usize| (size + 2 * self.padding).saturating_sub(window) / self.stride + 1;
        Extent { height: side(input.height), width: side(input.width) }
    }

    /// Multiplications and additions for one image, before an algorithm saves any.
    pub(super) fn operations(&self, input: Extent) -> usize {
        let per_pixel = self.out_channels * self.in_channels / self.groups * self.kernel * self.kernel;
        2 * per_pixel * self.output(input).pixels()
    }

    pub(crate) fn shape(&self, input: Extent) -> ConvolutionShape {
        let &Geometry { in_channels, out_channels, kernel, stride, dilation, padding, groups } = self;
        let output = self.output(input);
        ConvolutionShape { in_channels, out_channels, kernel, stride, dilation, padding, input, output, groups }
    }

    /// Blocks of the output that are computed together: all of them must see the same input.
    pub(crate) fn column_blocks(&self, most: usize) -> usize {
        let of_group = self.out_channels / self.groups;
        let one_input = self.groups == 1 || of_group.is_multiple_of(most * LANES);
        if one_input && blocks_of(self.out_channels).is_multiple_of(most) { most } else { 1 }
    }
}

impl FoldedConvolution {
    /// The same convolution over [unfolded](Geometry::unfolded) images.
    pub(crate) fn unfolded(self) -> FoldedConvolution {
        let (old, new) = (self.geometry, self.geometry.unfolded());
        let mut weights = vec![0.0; new.weights()];
        self.weights.iter().enumerate().for_each(|(index, &weight)| weights[old.unfolded_place(index)] = weight);
        FoldedConvolution { weights, geometry: new, ..self }
    }

    /// Groups whose channels do not lie evenly in blocks → one group, with zeros between what were groups.
    fn aligned(self) -> FoldedConvolution {
        let old = self.geometry;
        let even = |channels: usize| LANES.is_multiple_of(channels) || channels.is_multiple_of(LANES);
        let (inputs, outputs) = (old.in_channels / old.groups, old.out_channels / old.groups);
        if old.groups == 1 || (inputs == outputs && even(inputs)) {
            return self;
        }
        let of_output = inputs * old.kernel * old.kernel;
        let mut weights = vec![0.0; old.groups * self.weights.len()];
        for (out, values) in self.weights.chunks_exact(of_output).enumerate() {
            weights[(out * old.groups + out / outputs) * of_output..][..of_output].copy_from_slice(values);
        }
        FoldedConvolution { weights, geometry: Geometry { groups: 1, ..old }, ..self }
    }

    /// Packs the weights for the kernel that suits the workload, where maps of `input` come in.
    pub(crate) fn pack<S: Stored>(self, input: Extent, packing: &Packing) -> PackedConvolution<S> {
        let FoldedConvolution { name, geometry, weights, scale, bias } = self.aligned();
        let Geometry { in_channels, out_channels, kernel, stride, dilation, groups, .. } = geometry;
        let extent = geometry.output(input);
        let candidate = Candidate { in_channels, out_channels, kernel, stride, dilation, groups, extent };
        let algorithm = choose(&candidate, &packing.options);
        let column_blocks = geometry.column_blocks(packing.kernels.blocks);
        let values = Weights {
            values: &weights,
            scale: &scale,
            out_channels,
            in_channels: in_channels / groups,
            kernel,
            groups,
        };
        let weights = match algorithm {
            Algorithm::Direct | Algorithm::Plain(_) => for_convolution(&values, &geometry.shape(input), column_blocks),
            Algorithm::Grouped => for_groups(&values),
            Algorithm::Strassen => for_strassen(&values, column_blocks),
            Algorithm::Winograd(scheme) => for_winograd(&values, scheme, column_blocks),
        };
        let mut bias: Vec<f32> = bias.iter().map(|&value| value as f32).collect();
        bias.resize(out_channels, 0.0);
        PackedConvolution { name, geometry, algorithm, column_blocks, weights, bias: Buffer::of(&padded(&bias)) }
    }
}

impl<S: Stored> PackedConvolution<S> {
    /// (images, input) → (images, output), with bias, residual and ReLU.
    pub(crate) fn run(&self, team: &Team, input: Extent, maps: Maps<S>, scratch: &mut Scratch) {
        let layer = Layer {
            images: maps.images,
            input: maps.from,
            weights: self.weights.as_slice(),
            column_blocks: self.column_blocks,
            bias: self.bias.as_slice(),
            residual: maps.residual,
            relu: maps.relu,
            output: maps.to,
        };
        let (scheme, plain) = match self.algorithm {
            Algorithm::Direct => return team.convolve(&self.geometry.shape(input), layer, scratch),
            Algorithm::Strassen => return team.strassen(&self.geometry.shape(input), layer, scratch),
            Algorithm::Grouped => return team.convolve_groups(&self.geometry.shape(input), layer),
            Algorithm::Winograd(scheme) => (scheme, false),
            Algorithm::Plain(scheme) => (scheme, true),
        };
        let Geometry { in_channels, out_channels, padding, groups, .. } = self.geometry;
        let output = self.geometry.output(input);
        let shape = WinogradShape { scheme, in_channels, out_channels, groups, plain, input, output, padding };
        team.winograd(&shape, layer, scratch);
    }
}
