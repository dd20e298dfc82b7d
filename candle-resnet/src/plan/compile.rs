//! A blueprint and weights → the steps of a plan.

use candle_core::Result;

use super::convolution::{FoldedConvolution, Geometry, PackedConvolution};
use super::{Packing, Plan, PlanOptions, Source};
use crate::architecture::Norm;
use crate::blueprint::{Attention, Block, Blueprint, ConvNorm, NORM_EPSILON, Pool, Shortcut, Stem};
use crate::kernels::{Buffer, Extent, Stored, Unfolding, Window, padded};

/// A buffer, by its place in the workspace.
pub(super) type Slot = usize;

/// A part of the network whose output may be asked for: the stem, or a stage.
#[derive(Debug)]
pub(super) struct Segment<S: Stored> {
    pub(super) name: String,
    pub(super) steps: Vec<Step<S>>,
    pub(super) channels: usize,
}

/// One operation on whole maps.
#[derive(Debug)]
pub(super) struct Step<S: Stored> {
    pub(super) operation: Operation<S>,
    pub(super) from: Slot,
    pub(super) residual: Option<Slot>,
    pub(super) to: Slot,
    /// Channels of the output.
    pub(super) channels: usize,
}

#[derive(Debug)]
pub(super) enum Operation<S: Stored> {
    /// Images → a map; the factor of an [`Unfolding`].
    Unfold {
        factor: usize,
    },
    Convolve {
        convolution: PackedConvolution<S>,
        relu: bool,
    },
    Pool {
        window: Window,
        stride: usize,
        output: Pool,
    },
    /// Channels weighed by their means, the residual added, ReLU.
    Attend {
        attention: PackedAttention,
        relu: bool,
    },
    /// Group norm, the residual added, ReLU.
    Normalise {
        norm: GroupNorm,
        relu: bool,
    },
    ShiftChannels {
        channels: usize,
        stride: usize,
        padding: usize,
    },
}

#[derive(Debug)]
pub(super) enum PackedAttention {
    SqueezeExcite(Box<SqueezeExcite>),
    /// The kernel along the channels.
    EfficientChannel(Vec<f32>),
}

/// Two dense layers, in f32 always: they are small, and all that follows is multiplied by them.
#[derive(Debug)]
pub(super) struct SqueezeExcite {
    pub(super) squeeze: PackedConvolution<f32>,
    pub(super) excite: PackedConvolution<f32>,
}

#[derive(Debug)]
pub(super) struct GroupNorm {
    pub(super) groups: usize,
    pub(super) channels: usize,
    /// (blocks, 16).
    pub(super) weight: Buffer,
    pub(super) bias: Buffer,
}

impl<S: Stored> Plan<S> {
    /// Compiles the network before its classifier.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub(super) fn compile(blueprint: &Blueprint, source: &dyn Source, options: &PlanOptions) -> Result<Plan<S>> {
        let packing = Packing::new(*options);
        let boundaries = 1 + blueprint.stages.len();
        let mut compiler = Compiler {
            source,
            packing,
            steps: Vec::new(),
            extent: Extent { height: options.workload.image.0, width: options.workload.image.1 },
            // Slots of segments' outputs come first, then the one of unfolded images, which nothing else uses.
            slots: boundaries + 1,
            channels: Vec::new(),
            free: Vec::new(),
        };
        let mut segments = vec![compiler.stem(&blueprint.stem, boundaries)?];
        for (index, stage) in blueprint.stages.iter().enumerate() {
            segments.push(compiler.stage(&stage.name, &stage.blocks, index, index + 1)?);
        }
        let idle = std::sync::Mutex::default();
        let in_channels = blueprint.stem.convs.first().map_or(0, |unit| unit.in_channels);
        Ok(Plan {
            segments,
            in_channels,
            slots: compiler.slots,
            global_pool: blueprint.global_pool,
            kernels: packing.kernels,
            idle,
        })
    }
}

struct Compiler<'a, S: Stored> {
    source: &'a dyn Source,
    packing: Packing,
    /// Of the segment that is being compiled.
    steps: Vec<Step<S>>,
    /// Of the map after the last step, for an image of the workload.
    extent: Extent,
    slots: usize,
    /// Channels of what lies in each slot.
    channels: Vec<usize>,
    free: Vec<Slot>,
}

impl<S: Stored> Compiler<'_, S> {
    fn stem(&mut self, stem: &Stem, pixels: Slot) -> Result<Segment<S>> {
        let output = 0;
        let mut from = pixels;
        let count = stem.convs.len() + stem.pools.len();
        for (index, unit) in stem.convs.iter().enumerate() {
            let mut convolution = self.folded(unit)?;
            if index == 0 {
                convolution = self.unfold(convolution, pixels);
            }
            let to = if index + 1 == count { output } else { self.take() };
            self.conv_norm(unit, convolution, Ends { from, residual: None, to, relu: true })?;
            self.release(from, pixels);
            from = to;
        }
        let channels = stem.convs.last().map_or(0, |unit| unit.out_channels);
        for (index, &pool) in stem.pools.iter().enumerate() {
            let to = if stem.convs.len() + index + 1 == count { output } else { self.take() };
            self.pool(pool, channels, from, to);
            self.release(from, pixels);
            from = to;
        }
        Ok(Segment { name: "stem".into(), steps: std::mem::take(&mut self.steps), channels })
    }

    /// Turns images into a map, and the first convolution into one that reads it.
    fn unfold(&mut self, convolution: FoldedConvolution, pixels: Slot) -> FoldedConvolution {
        let (channels, factor) = (convolution.geometry.in_channels, convolution.geometry.unfolding());
        let unfolding = Unfolding { channels, factor, extent: self.extent };
        self.extent = unfolding.unfolded_extent();
        let channels = unfolding.unfolded_channels();
        let operation = Operation::Unfold { factor };
        self.push(Step { operation, from: pixels, residual: None, to: pixels, channels });
        if factor == 2 { convolution.unfolded() } else { convolution }
    }

    fn stage(&mut self, name: &str, blocks: &[Block], input: Slot, output: Slot) -> Result<Segment<S>> {
        let mut from = input;
        for (index, block) in blocks.iter().enumerate() {
            let to = if index + 1 == blocks.len() { output } else { self.take() };
            self.block(block, from, to)?;
            self.release(from, input);
            from = to;
        }
        let channels = blocks.last().map_or(0, Block::out_channels);
        Ok(Segment { name: name.into(), steps: std::mem::take(&mut self.steps), channels })
    }

    fn block(&mut self, block: &Block, input: Slot, output: Slot) -> Result<()> {
        let extent = self.extent;
        let residual = self.shortcut(&block.shortcut, input)?;
        self.extent = extent;
        let mut from = input;
        for (position, unit) in block.convs.iter().enumerate() {
            let last = position + 1 == block.convs.len();
            let convolution = self.folded(unit)?;
            let ends = match (last, &block.attention) {
                (true, None) => Ends { from, residual: Some(residual), to: output, relu: true },
                (true, Some(_)) => Ends { from, residual: None, to: self.take(), relu: false },
                (false, _) => Ends { from, residual: None, to: self.take(), relu: true },
            };
            self.conv_norm(unit, convolution, ends)?;
            self.release(from, input);
            from = ends.to;
            if let Some(pool) = block.anti_alias.filter(|_| position == block.strided_position()) {
                let to = self.take();
                self.pool(pool, unit.out_channels, from, to);
                self.release(from, input);
                from = to;
            }
        }
        if let Some(attention) = &block.attention {
            let attention = self.attention(attention)?;
            let operation = Operation::Attend { attention, relu: true };
            let channels = block.out_channels();
            self.push(Step { operation, from, residual: Some(residual), to: output, channels });
            self.release(from, input);
        }
        self.release(residual, input);
        Ok(())
    }

    /// Where the other branch ends.
    fn shortcut(&mut self, shortcut: &Shortcut, input: Slot) -> Result<Slot> {
        match shortcut {
            Shortcut::Identity => Ok(input),
            Shortcut::Projection { pool, conv } => {
                let mut from = input;
                if let Some(pool) = pool {
                    from = self.take();
                    self.pool(*pool, conv.in_channels, input, from);
                }
                let (convolution, to) = (self.folded(conv)?, self.take());
                self.conv_norm(conv, convolution, Ends { from, residual: None, to, relu: false })?;
                self.release(from, input);
                Ok(to)
            }
            &Shortcut::ZeroPadded { stride, padding } => {
                let (to, channels) = (self.take(), self.channels[input]);
                let operation = Operation::ShiftChannels { channels, stride, padding };
                let channels = channels + 2 * padding;
                self.push(Step { operation, from: input, residual: None, to, channels });
                Ok(to)
            }
        }
    }

    /// Appends a step, and notes what its slot holds from then on.
    fn push(&mut self, step: Step<S>) {
        self.channels.resize(self.slots, 0);
        self.channels[step.to] = step.channels;
        self.steps.push(step);
    }

    fn conv_norm(&mut self, unit: &ConvNorm, convolution: FoldedConvolution, ends: Ends) -> Result<()> {
        let packed: PackedConvolution<S> = convolution.pack(self.extent, &self.packing);
        self.extent = packed.geometry.output(self.extent);
        let channels = unit.out_channels;
        let Ends { from, residual, to, relu } = ends;
        match unit.norm_kind {
            Norm::Batch => {
                let operation = Operation::Convolve { convolution: packed, relu };
                self.push(Step { operation, from, residual, to, channels });
            }
            Norm::Group { groups } => {
                let between = self.take();
                let operation = Operation::Convolve { convolution: packed, relu: false };
                self.push(Step { operation, from, residual: None, to: between, channels });
                let operation = Operation::Normalise { norm: self.group_norm(unit, groups)?, relu };
                self.push(Step { operation, from: between, residual, to, channels });
                self.free.push(between);
            }
        }
        Ok(())
    }

    /// The convolution with its batch norm folded in; a group norm stays outside.
    fn folded(&self, unit: &ConvNorm) -> Result<FoldedConvolution> {
        let (scale, bias) = match unit.norm_kind {
            Norm::Batch => self.batch_norm(unit)?,
            Norm::Group { .. } => (vec![1.0; unit.out_channels], Vec::new()),
        };
        Ok(FoldedConvolution {
            name: unit.conv.clone(),
            geometry: Geometry::of(unit),
            weights: self.source.values(&format!("{}.weight", unit.conv))?,
            scale,
            bias,
        })
    }

    /// What a batch norm multiplies channels by, and what it adds after that.
    fn batch_norm(&self, unit: &ConvNorm) -> Result<(Vec<f64>, Vec<f64>)> {
        let of_norm = |suffix: &str| self.doubles(&format!("{}.{suffix}", unit.norm));
        let (weight, bias) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let pairs = weight.iter().zip(&variance);
        let scale: Vec<f64> = pairs.map(|(weight, variance)| weight / (variance + NORM_EPSILON).sqrt()).collect();
        let means = mean.iter().zip(&scale);
        let bias = bias.iter().zip(means).map(|(bias, (mean, scale))| bias - mean * scale).collect();
        Ok((scale, bias))
    }

    fn doubles(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.source.values(name)?.into_iter().map(f64::from).collect())
    }

    fn group_norm(&self, unit: &ConvNorm, groups: usize) -> Result<GroupNorm> {
        let of_norm = |suffix: &str| self.source.values(&format!("{}.{suffix}", unit.norm));
        Ok(GroupNorm {
            groups,
            channels: unit.out_channels,
            weight: Buffer::of(&padded(&of_norm("weight")?)),
            bias: Buffer::of(&padded(&of_norm("bias")?)),
        })
    }

    fn attention(&self, attention: &Attention) -> Result<PackedAttention> {
        Ok(match attention {
            Attention::SqueezeExcite { name, channels, inner } => {
                let (squeeze, excite) = (
                    self.dense(&format!("{name}.fc1"), *channels, *inner)?,
                    self.dense(&format!("{name}.fc2"), *inner, *channels)?,
                );
                PackedAttention::SqueezeExcite(Box::new(SqueezeExcite { squeeze, excite }))
            }
            Attention::EfficientChannel { name, .. } => {
                PackedAttention::EfficientChannel(self.source.values(&format!("{name}.conv.weight"))?)
            }
        })
    }

    /// A dense layer, as a 1×1 convolution of maps of one pixel.
    fn dense(&self, name: &str, inputs: usize, outputs: usize) -> Result<PackedConvolution<f32>> {
        let dense = FoldedConvolution {
            name: name.into(),
            geometry: Geometry::dense(inputs, outputs),
            weights: self.source.values(&format!("{name}.weight"))?,
            scale: vec![1.0; outputs],
            bias: self.doubles(&format!("{name}.bias"))?,
        };
        Ok(dense.pack(Extent { height: 1, width: 1 }, &self.packing))
    }

    fn pool(&mut self, pool: Pool, channels: usize, from: Slot, to: Slot) {
        let (window, stride) = window(pool);
        self.extent = pooled(pool, self.extent);
        let operation = Operation::Pool { window, stride, output: pool };
        self.push(Step { operation, from, residual: None, to, channels });
    }

    fn take(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Gives a slot back, unless it is the one that holds the input.
    fn release(&mut self, slot: Slot, input: Slot) {
        if slot != input && !self.free.contains(&slot) {
            self.free.push(slot);
        }
    }
}

/// Where a convolution reads and writes, and what is fused into it.
#[derive(Clone, Copy)]
struct Ends {
    from: Slot,
    residual: Option<Slot>,
    to: Slot,
    relu: bool,
}

/// The kernel's word for a pool, and its stride.
pub(crate) fn window(pool: Pool) -> (Window, usize) {
    match pool {
        Pool::Max { stride } => (Window::Max, stride),
        Pool::Average | Pool::AverageToTheEdge => (Window::Mean { zeros: false }, 2),
        Pool::AverageSameSize => (Window::Mean { zeros: true }, 1),
        Pool::Blur { stride } => (Window::Blur, stride),
    }
}

/// Of the map that comes out of a pool.
pub(crate) fn pooled(pool: Pool, input: Extent) -> Extent {
    Extent { height: pool.output_size(input.height), width: pool.output_size(input.width) }
}
