//! A convolution, its input's gradient and its weights' gradient.
//!
//! Weights change with every step: they are packed anew for each pass, into memory that all convolutions share. The gradient of
//! the input is itself a convolution, with channels in and out exchanged and kernels turned; where there was a stride, zeros stand
//! between the pixels of what it is given.

use candle_core::Result;

use super::memory::Memory;
use super::variables::Variables;
use crate::blueprint::ConvNorm;
use crate::kernels::{DenseWeights, Extent, LANES, Layer, Scheme, Team, WinogradShape, blocks_of};
use crate::plan::{FoldedConvolution, Geometry, Maps, PackedConvolution, Packing};

/// Tiles of a batch below which the smaller scheme costs less: its weights are fewer.
const FEW_TILES: usize = 24;

#[derive(Debug)]
pub(super) struct Convolution {
    /// As in the network: `layer1.0.conv1`.
    pub(super) name: String,
    /// As it is computed.
    geometry: Geometry,
    /// As the network has it, where that is another one: images come in unfolded.
    original: Option<Geometry>,
}

/// The maps of a pass.
pub(super) struct Pass<'a> {
    pub(super) images: usize,
    /// Of the convolution's input.
    pub(super) input: Extent,
    /// What is read: the input, or the gradient of the output.
    pub(super) from: &'a [f32],
    /// Added to what is written.
    pub(super) residual: Option<&'a [f32]>,
    pub(super) to: &'a mut [f32],
}

impl Convolution {
    /// Over maps.
    pub(super) fn of_maps(unit: &ConvNorm) -> Convolution {
        Convolution { name: unit.conv.clone(), geometry: Geometry::of(unit), original: None }
    }

    /// Over images that have been unfolded.
    pub(super) fn of_images(unit: &ConvNorm) -> Convolution {
        let geometry = Geometry::of(unit);
        match geometry.unfolding() {
            1 => Convolution::of_maps(unit),
            _ => Convolution { name: unit.conv.clone(), geometry: geometry.unfolded(), original: Some(geometry) },
        }
    }

    /// Side of the square of pixels that become channels before a convolution of images.
    pub(super) fn unfolding(unit: &ConvNorm) -> usize {
        Geometry::of(unit).unfolding()
    }

    /// Name of its weight.
    pub(super) fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    pub(super) fn output(&self, input: Extent) -> Extent {
        self.geometry.output(input)
    }

    /// Packs weights that the fast way does not know; to be called outside of a team.
    pub(super) fn prepare(
        &self,
        variables: &Variables,
        (direction, input): (Direction, Extent),
        packing: &Packing,
    ) -> Result<Option<PackedConvolution<f32>>> {
        if self.is_dense(direction) {
            return Ok(None);
        }
        let folded = |geometry: Geometry, weights: Vec<f32>| FoldedConvolution {
            name: self.name.clone(),
            geometry,
            weights,
            scale: vec![1.0; geometry.out_channels],
            bias: Vec::new(),
        };
        variables.with(&self.weight(), |values| {
            Ok(Some(match (direction, &self.original) {
                (Direction::Forward, None) => folded(self.geometry, values.to_vec()).pack(input, packing),
                (Direction::Forward, &Some(original)) => {
                    folded(original, values.to_vec()).unfolded().pack(input, packing)
                }
                (Direction::Backward, _) => {
                    folded(self.backward_geometry(), transposed(&self.geometry, values)).pack(input, packing)
                }
            }))
        })
    }

    /// Whether weights are packed within the pass.
    fn is_dense(&self, direction: Direction) -> bool {
        let Geometry { in_channels, out_channels, groups, .. } = self.geometry;
        let inputs = if direction == Direction::Forward { in_channels } else { out_channels };
        groups == 1 && inputs >= LANES && self.original.is_none()
    }

    /// Maps → maps.
    pub(super) fn forward(
        &self,
        (team, memory): (&Team, &mut Memory),
        variables: &Variables,
        prepared: Option<&PackedConvolution<f32>>,
        pass: Pass,
    ) -> Result<()> {
        self.run((team, memory), variables, (Direction::Forward, &self.geometry), prepared, pass)
    }

    /// The gradient of the output → that of the input.
    pub(super) fn backward(
        &self,
        (team, memory): (&Team, &mut Memory),
        variables: &Variables,
        prepared: Option<&PackedConvolution<f32>>,
        pass: Pass,
    ) -> Result<()> {
        let (geometry, output) = (self.backward_geometry(), self.output(pass.input));
        let run = |memory: &mut Memory, pass: Pass| {
            self.run((team, memory), variables, (Direction::Backward, &geometry), prepared, pass)
        };
        let Geometry { kernel, stride, .. } = self.geometry;
        let Pass { images, input, from, residual, to } = pass;
        if stride == 1 {
            return run(memory, Pass { images, input: output, from, residual, to });
        }
        let blocks = |channels: usize| images * blocks_of(channels);
        if kernel == 1 {
            let mut few = memory.take(output.values(blocks(self.geometry.in_channels)));
            run(memory, Pass { images, input: output, from, residual: None, to: few.as_mut_slice() })?;
            team.spread_pixels((few.as_slice(), output), stride, residual, (to, input));
            memory.give(few);
            return Ok(());
        }
        // As large as makes the input come out.
        let Geometry { padding, dilation, .. } = geometry;
        let side = |size: usize| size + dilation * (kernel - 1) - 2 * padding;
        let spread_extent = Extent { height: side(input.height), width: side(input.width) };
        let mut spread = memory.take(spread_extent.values(blocks(self.geometry.out_channels)));
        team.spread_pixels((from, output), stride, None, (spread.as_mut_slice(), spread_extent));
        run(memory, Pass { images, input: spread_extent, from: spread.as_slice(), residual, to })?;
        memory.give(spread);
        Ok(())
    }

    /// The convolution that makes the input's gradient of the output's, with zeros put in for a stride.
    fn backward_geometry(&self) -> Geometry {
        let Geometry { in_channels, out_channels, kernel, dilation, padding, .. } = self.geometry;
        let padding = dilation * (kernel - 1) - padding;
        Geometry { in_channels: out_channels, out_channels: in_channels, stride: 1, padding, ..self.geometry }
    }

    fn run(
        &self,
        (team, memory): (&Team, &mut Memory),
        variables: &Variables,
        (direction, geometry): (Direction, &Geometry),
        prepared: Option<&PackedConvolution<f32>>,
        pass: Pass,
    ) -> Result<()> {
        let Pass { images, input, from, residual, to } = pass;
        if let Some(packed) = prepared {
            packed.run(team, input, Maps { images, from, residual, relu: false, to }, &mut memory.scratch);
            return Ok(());
        }
        let column_blocks = geometry.column_blocks(team.kernels.blocks);
        let output_blocks = blocks_of(geometry.out_channels);
        variables.with(&self.weight(), |values| {
            let &Geometry { kernel, .. } = geometry;
            let (from, to) = (self.geometry.in_channels, self.geometry.out_channels);
            let weights =
                DenseWeights { values, channels: (from, to), kernel, backward: direction == Direction::Backward };
            memory.packed.reserve(weights.of_column(column_blocks) * (output_blocks / column_blocks));
            team.pack(&weights, column_blocks, memory.packed.as_mut_slice());
            Ok(())
        })?;
        let bias = memory.zeros(output_blocks * LANES);
        let scheme = scheme(geometry, input, images);
        if let Some(scheme) = scheme {
            let (blocks, columns) = (blocks_of(geometry.in_channels), output_blocks / column_blocks);
            memory.transformed.reserve(scheme.products() * blocks * LANES * output_blocks * LANES);
            let transformed = memory.transformed.as_mut_slice();
            team.transform_weights(scheme, (blocks, columns), column_blocks, memory.packed.as_slice(), transformed);
        }
        let weights = if scheme.is_some() { memory.transformed.as_slice() } else { memory.packed.as_slice() };
        let layer = Layer {
            images,
            input: from,
            weights,
            column_blocks,
            bias: bias.as_slice(),
            residual,
            relu: false,
            output: to,
        };
        match scheme {
            None => team.convolve(&geometry.shape(input), layer, &mut memory.scratch),
            Some(scheme) => {
                let &Geometry { in_channels, out_channels, groups, padding, .. } = geometry;
                let (plain, output) = (false, geometry.output(input));
                let shape = WinogradShape { scheme, in_channels, out_channels, groups, plain, input, output, padding };
                team.winograd(&shape, layer, &mut memory.scratch);
            }
        }
        memory.give_zeros(bias);
        Ok(())
    }

    /// The gradient of the weight, as the network has it.
    pub(super) fn weight_gradient(
        &self,
        (team, memory): (&Team, &mut Memory),
        (images, extent): (usize, Extent),
        (input, gradient): (&[f32], &[f32]),
    ) -> Vec<f32> {
        let mut found = vec![0.0; self.geometry.weights()];
        let shape = self.geometry.shape(extent);
        team.weight_gradient(&shape, images, (input, gradient), &mut memory.scratch, &mut found);
        match &self.original {
            None => found,
            Some(original) => (0..original.weights()).map(|index| found[original.unfolded_place(index)]).collect(),
        }
    }

    /// As the network has it.
    pub(super) fn geometry(&self) -> Geometry {
        self.original.unwrap_or(self.geometry)
    }

    /// Its weight's shape, as the network has it.
    pub(super) fn weight_shape(&self) -> [usize; 4] {
        let Geometry { in_channels, out_channels, kernel, groups, .. } = self.geometry();
        [out_channels, in_channels / groups, kernel, kernel]
    }
}

/// Which way maps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// Whether Winograd's method pays, and how. A function of shapes alone, so that the number of threads changes no bit.
fn scheme(geometry: &Geometry, extent: Extent, images: usize) -> Option<Scheme> {
    let &Geometry { kernel, stride, dilation, groups, .. } = geometry;
    if (kernel, stride, dilation, groups) != (3, 1, 1, 1) {
        return None;
    }
    let few = Scheme::FourByFour.tiles(extent) * images < FEW_TILES;
    Some(if few { Scheme::TwoByTwo } else { Scheme::FourByFour })
}

/// (out, in / groups, k, k) → (in, out / groups, k, k), with kernels turned by half a circle.
fn transposed(geometry: &Geometry, values: &[f32]) -> Vec<f32> {
    let &Geometry { in_channels, out_channels, kernel, groups, .. } = geometry;
    let (into, out, area) = (in_channels / groups, out_channels / groups, kernel * kernel);
    let mut turned = vec![0.0; values.len()];
    for (index, &value) in values.iter().enumerate() {
        let (tap, pair) = (index % area, index / area);
        let (within, output) = (pair % into, pair / into);
        let (group, position) = (output / out, output % out);
        turned[((group * into + within) * out + position) * area + area - 1 - tap] = value;
    }
    turned
}
