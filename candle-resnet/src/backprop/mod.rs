//! The trainable form of a network on kernels: features, and the way back to the gradients of parameters.
//!
//! Does the same as [`Network`](crate::network::Network) with candle's graph, several times as fast: maps lie as kernels read them from the
//! first layer to the last, batch norms are one pass with ReLU and residual, and what is kept for the way back is what PyTorch keeps.
//! Knows neither losses nor optimisers, and not the classifier.
//!
//! On a CPU kernels are this crate's own, in f32, and no bit of what comes out depends on the number of threads. On NVIDIA GPUs, with the
//! feature `cudnn`, convolutions are cuDNN's, and maps may be bf16 or f16.

mod attention;
mod convolution;
#[cfg(feature = "cudnn")]
mod cuda;
mod dense;
mod global_pool;
mod graph;
mod group_norm;
mod memory;
mod norm;
mod run;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use self::convolution::Direction;
use self::global_pool::Last;
use self::graph::{Graph, INPUT, Images};
use self::memory::Memory;
use self::run::Tape;
use self::variables::{Variables, with_values};
use crate::architecture::Architecture;
use crate::blueprint::Blueprint;
use crate::kernels::{Buffer, Extent, InstructionSet, Kernels, Team, Unfolding, blocks_of};
use crate::part::Part;
use crate::plan::{Packing, PlanOptions, Precision, Workload};
use crate::training::TrainingMode;

/// A network from one part on, up to its pooled features, that can go back.
pub trait Backward {
    /// What the first part is given, (N, C, H, W) → (N, D) in f32, untracked; what the way back needs is kept until the next call.
    ///
    /// `variables` are the whole network's under torchvision's names, f32 on the device. Batch norms that normalise by the batch
    /// move their running statistics.
    ///
    /// # Errors
    /// If a variable is missing, shapes do not fit, a batch norm has but one value to normalise by, or a device has no room.
    fn features(&mut self, variables: &HashMap<String, Tensor>, x: &Tensor, mode: &mut TrainingMode) -> Result<Tensor>;

    /// The gradient of the features that [`features`](Backward::features) gave last, (N, D) → the gradients of those parameters for
    /// which `wanted` says so, by name, in f32. `variables` must not have changed in between.
    ///
    /// Where maps are f16, so are their gradients, and what leaves f16's range makes gradients infinite or NaN, or 0: whoever asks for them
    /// scales the features' gradient, and divides what comes out.
    ///
    /// # Errors
    /// If there is nothing to go back through, shapes do not fit, or a device has no room.
    fn gradients(
        &mut self,
        variables: &HashMap<String, Tensor>,
        features: &Tensor,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(String, Tensor)>>;
}

/// How a way back computes.
#[derive(Debug, Clone, Copy)]
pub struct BackwardOptions {
    /// On a CPU.
    pub instruction_set: InstructionSet,
    /// What maps are held in on a GPU; on a CPU they are f32.
    pub precision: Precision,
}

impl Default for BackwardOptions {
    fn default() -> BackwardOptions {
        BackwardOptions { instruction_set: InstructionSet::best(), precision: Precision::default() }
    }
}

/// The network of `architecture` from the part `first` on; `None` where it can only go back through candle's graph.
///
/// So it is on Metal, on CUDA without the feature `cudnn`, and on CUDA for networks that put out other features than means; and everywhere
/// where nothing lies before the classifier.
pub fn backward(
    architecture: &Architecture,
    first: Part,
    device: &Device,
    options: &BackwardOptions,
) -> Option<Box<dyn Backward>> {
    match device {
        Device::Cpu => Some(Box::new(OnCpu::new(architecture, first, options.instruction_set)?)),
        #[cfg(feature = "cudnn")]
        Device::Cuda(device) => match options.precision {
            Precision::F32 => Some(Box::new(cuda::OnCuda::<f32>::new(architecture, first, device)?)),
            Precision::Bf16 => Some(Box::new(cuda::OnCuda::<half::bf16>::new(architecture, first, device)?)),
            Precision::F16 => Some(Box::new(cuda::OnCuda::<half::f16>::new(architecture, first, device)?)),
        },
        _ => None,
    }
}

/// On a CPU, in f32.
struct OnCpu {
    graph: Graph,
    instruction_set: InstructionSet,
    memory: Memory,
    tape: Option<Tape>,
}

impl OnCpu {
    fn new(architecture: &Architecture, first: Part, instruction_set: InstructionSet) -> Option<OnCpu> {
        let graph = Graph::of(&Blueprint::of(architecture), first, Images::Unfolded)?;
        Some(OnCpu { graph, instruction_set, memory: Memory::default(), tape: None })
    }
}

impl Backward for OnCpu {
    fn features(&mut self, variables: &HashMap<String, Tensor>, x: &Tensor, mode: &mut TrainingMode) -> Result<Tensor> {
        self.forget();
        let (images, channels, height, width) = x.dims4()?;
        let input = self.unfold(x, (images, channels), Extent { height, width })?;
        let unfolding = self.unfolding(channels, Extent { height, width });
        let extents = self.graph.extents(unfolding.unfolded_extent())?;
        let variables = Variables(variables);
        let prepared = self.graph.prepare(&variables, (Direction::Forward, &extents), &self.packing())?;
        let (graph, memory) = (&self.graph, &mut self.memory);
        let tape = Team::gather(Kernels::of(self.instruction_set), rayon::current_num_threads(), |team| {
            graph.forward((team, memory), (&variables, &prepared), (images, extents, input), mode)
        })?;
        let features = last(graph, &tape).features(&tape.values[graph.output()], graph.global_pool);
        self.tape = Some(tape);
        let width = features.len() / images;
        Tensor::from_vec(features, (images, width), &Device::Cpu)
    }

    fn gradients(
        &mut self,
        variables: &HashMap<String, Tensor>,
        features: &Tensor,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(String, Tensor)>> {
        let Some(tape) = self.tape.take() else { bail!("no features were computed to go back from") };
        let variables = Variables(variables);
        let prepared = self.graph.prepare(&variables, (Direction::Backward, &tape.extents), &self.packing())?;
        let (graph, memory) = (&self.graph, &mut self.memory);
        let map = &tape.values[graph.output()];
        let mut output = memory.take(map.len());
        with_values(features, |features| {
            let last = last(graph, &tape);
            if features.len() != last.images * last.channels * graph.global_pool.features_per_channel() {
                bail!("the gradient of the features has {} values", features.len());
            }
            last.gradient(map, graph.global_pool, features, output.as_mut_slice());
            Ok(())
        })?;
        let found = Team::gather(Kernels::of(self.instruction_set), rayon::current_num_threads(), |team| {
            graph.backward((team, memory), (&variables, &prepared), (&tape, output), wanted)
        })?;
        self.tape = Some(tape);
        self.forget();
        found
            .into_iter()
            .map(|(name, shape, values)| Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?)))
            .collect()
    }
}

impl OnCpu {
    /// Gives the memory of the last pass back.
    fn forget(&mut self) {
        let values = self.tape.take().map(|tape| tape.values);
        values.into_iter().flatten().for_each(|value| self.memory.give(value));
    }

    fn packing(&self) -> Packing {
        // What a convolution is computed by must not depend on the number of threads.
        let workload = Workload { threads: 1, ..Workload::default() };
        Packing::new(PlanOptions { instruction_set: self.instruction_set, workload, ..PlanOptions::default() })
    }

    fn unfolding(&self, channels: usize, extent: Extent) -> Unfolding {
        Unfolding { channels, factor: self.graph.unfolding, extent }
    }

    /// What comes in, as kernels read it.
    fn unfold(&mut self, x: &Tensor, (images, channels): (usize, usize), extent: Extent) -> Result<Buffer> {
        let unfolding = self.unfolding(channels, extent);
        if images == 0 || extent.pixels() == 0 || unfolding.unfolded_channels() != self.graph.channels[INPUT] {
            let wanted = self.graph.channels[INPUT] / self.graph.unfolding.pow(2);
            bail!("maps of shape {:?} where (N, {wanted}, H, W) is expected", x.dims());
        }
        let of_map = unfolding.unfolded_extent().values(blocks_of(unfolding.unfolded_channels()));
        let mut map = self.memory.take(images * of_map);
        with_values(x, |values| {
            let maps = map.as_mut_slice().par_chunks_exact_mut(of_map);
            maps.zip(values.par_chunks_exact(channels * extent.pixels())).for_each(|(map, image)| {
                map.fill(0.0);
                unfolding.unfold(image, map);
            });
            Ok(())
        })?;
        Ok(map)
    }
}

fn last(graph: &Graph, tape: &Tape) -> Last {
    let output = graph.output();
    Last { images: tape.images, channels: graph.channels[output], extent: tape.extents[output] }
}
