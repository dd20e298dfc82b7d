//! A frozen network as a list of steps over buffers: what the CPU runs.
//!
//! Compiled once from a blueprint and weights: batch norms folded in f64, bias, ReLU and residual within the convolutions,
//! weights packed for the algorithm that suits each shape. A run goes depth first: few images pass through the first
//! stages at a time, more through the last, so that maps stay in the caches and heavy weights serve many images. Knows
//! nothing of tensors; the arithmetic lies in the kernels.

mod choice;
mod compile;
mod convolution;
mod layout;
mod peak;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Mutex;

use crate::architecture::GlobalPool;
pub use crate::kernels::InstructionSet;
use crate::kernels::{Extent, Kernels};

pub use choice::Workload;
use compile::Segment;
pub use peak::peak_flops;
pub(crate) use run::End;
pub use run::StepTime;
use run::Workspace;

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// What the kernels use.
    pub instruction_set: InstructionSet,
    /// What the plan is mostly used for.
    pub workload: Workload,
    /// Whether to keep weights as small as they are, at the cost of speed.
    pub low_memory: bool,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions { instruction_set: InstructionSet::best(), workload: Workload::default(), low_memory: false }
    }
}

/// Where a plan gets its weights.
pub(crate) trait Source {
    /// The tensor `name`, row-major.
    ///
    /// # Errors
    /// If there is none.
    fn values(&self, name: &str) -> candle_core::Result<Vec<f32>>;
}

/// What decides how weights are packed.
#[derive(Clone, Copy)]
struct Packing {
    options: PlanOptions,
    kernels: Kernels,
}

/// A compiled network from pixels to pooled features. Many threads may use one at once.
pub(crate) struct Plan {
    /// The stem and every stage.
    segments: Vec<Segment>,
    /// Channels of an image.
    in_channels: usize,
    /// Buffers that steps name.
    slots: usize,
    global_pool: GlobalPool,
    kernels: Kernels,
    /// Memory of runs that are over, for those to come.
    idle: Mutex<Vec<Workspace>>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plan").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

/// Images (N, C, H, W), row-major.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) count: usize,
    pub(crate) channels: usize,
    pub(crate) extent: Extent,
}

impl<'a> Images<'a> {
    /// Floats of one image.
    fn floats(&self) -> usize {
        self.channels * self.extent.pixels()
    }

    /// The `index`-th image.
    fn image(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.floats()..][..self.floats()]
    }
}
