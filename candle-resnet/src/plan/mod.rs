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

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Result, bail};
use half::bf16;

use crate::architecture::GlobalPool;
use crate::blueprint::Blueprint;
pub use crate::kernels::InstructionSet;
use crate::kernels::{Extent, Kernels, Stored};

pub use choice::Workload;
use compile::Segment;
pub(crate) use compile::{pooled, window};
pub(crate) use convolution::{FoldedConvolution, Geometry, Maps, PackedConvolution};
pub use peak::peak_flops;
pub use run::StepTime;
use run::Workspace;
pub(crate) use run::{End, Start};

/// What maps and weights are held in, and what is multiplied; sums are f32 in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 24 significant bits.
    #[default]
    F32,
    /// 8 significant bits: half the memory, and half the time where the processor has instructions for it.
    Bf16,
    /// 11 significant bits, from 6e-8 to 65504: on CUDA alone, in the time and memory of bf16.
    F16,
}

/// What the CPU's kernels say to f16.
const NO_F16: &str = "f16 is computed on CUDA alone; bf16 is what a CPU has";

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

    /// `f32`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// Refuses a device on which nothing is computed in it.
    ///
    /// # Errors
    /// For f16 off CUDA, and for bf16 on Metal.
    pub fn check(self, device: &Device) -> Result<()> {
        match (self, device) {
            (Precision::F32, _) | (_, Device::Cuda(_)) | (Precision::Bf16, Device::Cpu) => Ok(()),
            (Precision::F16, Device::Cpu) => bail!("{NO_F16}"),
            (Precision::F16, Device::Metal(_)) => bail!("f16 is computed on CUDA alone"),
            (Precision::Bf16, Device::Metal(_)) => bail!("bf16 is computed on the CPU and on CUDA alone"),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Precision, String> {
        let found = Precision::ALL.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| format!("`{name}` is none of f32, bf16, f16"))
    }
}

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// What the kernels use.
    pub instruction_set: InstructionSet,
    /// What it computes in.
    pub precision: Precision,
    /// What the plan is mostly used for.
    pub workload: Workload,
    /// Whether to keep weights as small as they are, at the cost of speed.
    pub low_memory: bool,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions {
            instruction_set: InstructionSet::best(),
            precision: Precision::default(),
            workload: Workload::default(),
            low_memory: false,
        }
    }
}

/// Where a plan gets its weights.
pub(crate) trait Source {
    /// The tensor `name`, row-major.
    ///
    /// # Errors
    /// If there is none.
    fn values(&self, name: &str) -> Result<Vec<f32>>;
}

/// What decides how weights are packed.
#[derive(Clone, Copy)]
pub(crate) struct Packing {
    options: PlanOptions,
    kernels: &'static Kernels,
}

impl Packing {
    pub(crate) fn new(options: PlanOptions) -> Packing {
        Packing { options, kernels: Kernels::of(options.instruction_set) }
    }
}

/// A compiled network from pixels to pooled features, whatever it computes in. Many threads may use one at once.
pub(crate) trait Compiled: fmt::Debug + Send + Sync {
    /// Images, or their maps at a boundary → what the network holds at `end`, row-major, and its shape: (N, D), or (N, C, H, W).
    ///
    /// # Errors
    /// If the network does not take such images or maps, or has no such boundary.
    fn run(&self, images: &Images, start: Start, end: End) -> Result<(Vec<f32>, Vec<usize>)>;

    /// The time of each convolution or other step, for `images` on one thread.
    ///
    /// # Errors
    /// If the network does not take such images.
    fn profile(&self, images: &Images) -> Result<Vec<StepTime>>;
}

/// Compiles the network before its classifier.
///
/// # Errors
/// If a tensor is missing or of another shape, or there are no kernels for the precision.
pub(crate) fn compile(blueprint: &Blueprint, source: &dyn Source, options: &PlanOptions) -> Result<Arc<dyn Compiled>> {
    Ok(match options.precision {
        Precision::F32 => Arc::new(Plan::<f32>::compile(blueprint, source, options)?),
        Precision::Bf16 => Arc::new(Plan::<bf16>::compile(blueprint, source, options)?),
        Precision::F16 => bail!("{NO_F16}"),
    })
}

/// A network whose maps are held in `S`.
struct Plan<S: Stored> {
    /// The stem and every stage.
    segments: Vec<Segment<S>>,
    /// Channels of an image.
    in_channels: usize,
    /// Buffers that steps name.
    slots: usize,
    global_pool: GlobalPool,
    kernels: &'static Kernels,
    /// Memory of runs that are over, for those to come.
    idle: Mutex<Vec<Workspace<S>>>,
}

impl<S: Stored> fmt::Debug for Plan<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Plan").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

/// Images, or their maps, (N, C, H, W), row-major.
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
