//! The kernels compiled once for each instruction set, and the choice between them at run time.

use half::bf16;

use super::channelwise::{self, Affine, Reduce};
use super::convolution::{self, Convolve};
use super::grouped::{self, ConvolveGroups};
#[cfg(target_arch = "aarch64")]
use super::lanes::Neon;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Lanes, Portable};
use super::norm::{self, Moments, NormGradient, NormSums};
use super::pool::{self, PoolPlanes};
use super::pool_gradient::{self, PoolGradient};
use super::stored::Stored;
use super::strassen::{self, Strassen};
use super::weight_gradient::{self, WeightGradient};
use super::winograd::{self, Multiply, MultiplyPlain, TransformInputs, TransformOutputs, TransformWeights};

/// What a processor may offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// x86-64 with AVX-512 F.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit ARM.
    Neon,
    /// Whatever the compiler was told to build for.
    Portable,
}

impl InstructionSet {
    /// All of them, the fastest first.
    pub const ALL: [InstructionSet; 4] =
        [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Neon, InstructionSet::Portable];

    /// `avx512`, `avx2`, `neon` or `portable`.
    pub fn name(self) -> &'static str {
        match self {
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Neon => "neon",
            InstructionSet::Portable => "portable",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => true,
            InstructionSet::Portable => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Whether products of bf16 are instructions of this processor. Elsewhere bf16 saves memory, not time.
    pub fn multiplies_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => self.is_available() && std::arch::is_x86_feature_detected!("avx512bf16"),
            _ => false,
        }
    }

    /// The fastest that this processor has.
    pub fn best() -> InstructionSet {
        Self::ALL.into_iter().find(|set| set.is_available()).unwrap_or(InstructionSet::Portable)
    }
}

/// Every kernel for one instruction set and one kind of map.
///
/// # Safety
/// Each may be called where the instruction set is available and the call keeps the kernel's own promises.
pub(crate) struct KernelsOf<S: Stored> {
    /// [`convolution::convolve`].
    pub(crate) convolve: unsafe fn(&mut Convolve<S>),
    /// [`grouped::convolve_groups`].
    pub(crate) convolve_groups: unsafe fn(&ConvolveGroups<S>),
    /// [`strassen::strassen`].
    pub(crate) strassen: unsafe fn(&mut Strassen<S>),
    /// [`winograd::transform_inputs`].
    pub(crate) transform_inputs: unsafe fn(&TransformInputs<S>),
    /// [`winograd::multiply`].
    pub(crate) multiply: unsafe fn(&Multiply<S>),
    /// [`winograd::multiply_plain`].
    pub(crate) multiply_plain: unsafe fn(&mut MultiplyPlain<S>),
    /// [`winograd::transform_outputs`].
    pub(crate) transform_outputs: unsafe fn(&TransformOutputs<S>),
    /// [`pool::pool`].
    pub(crate) pool: unsafe fn(&PoolPlanes<S>),
    /// [`channelwise::reduce`].
    pub(crate) reduce: unsafe fn(&Reduce<S>),
    /// [`channelwise::affine`].
    pub(crate) affine: unsafe fn(&Affine<S>),
}

/// What training needs beside [`KernelsOf`], for maps in f32.
///
/// # Safety
/// As [`KernelsOf`].
pub(crate) struct TrainingKernels {
    /// [`weight_gradient::weight_gradient`].
    pub(crate) weight_gradient: unsafe fn(&mut WeightGradient),
    /// [`winograd::transform_weights`].
    pub(crate) transform_weights: unsafe fn(&TransformWeights),
    /// [`norm::moments`].
    pub(crate) moments: unsafe fn(&Moments),
    /// [`norm::norm_sums`].
    pub(crate) norm_sums: unsafe fn(&NormSums),
    /// [`norm::norm_gradient`].
    pub(crate) norm_gradient: unsafe fn(&NormGradient),
    /// [`pool_gradient::pool_gradient`].
    pub(crate) pool_gradient: unsafe fn(&PoolGradient),
}

/// Every kernel for one instruction set.
pub(crate) struct Kernels {
    /// Channel blocks of the output that a product computes together, where there are as many.
    pub(crate) blocks: usize,
    /// For maps in f32.
    pub(super) single: KernelsOf<f32>,
    /// For maps in bf16.
    pub(super) half: KernelsOf<bf16>,
    pub(super) training: TrainingKernels,
}

/// The generic kernels as functions of one vector type, compiled under its instruction sets: one for f32 and one for bf16.
macro_rules! instruction_set {
    ($name:ident, f32: $single:ty $(, $features:literal)?; bf16: $half:ty $(, $half_features:literal)?) => {
        static $name: Kernels = Kernels {
            blocks: <$single as Lanes>::BLOCKS,
            single: instruction_set!(@kernels f32, $single $(, $features)?),
            half: instruction_set!(@kernels bf16, $half $(, $half_features)?),
            training: TrainingKernels {
                weight_gradient: instruction_set!(@kernel ($single), weight_gradient::weight_gradient, &mut WeightGradient $(, $features)?),
                transform_weights: instruction_set!(@kernel ($single), winograd::transform_weights, &TransformWeights $(, $features)?),
                moments: instruction_set!(@kernel ($single), norm::moments, &Moments $(, $features)?),
                norm_sums: instruction_set!(@kernel ($single), norm::norm_sums, &NormSums $(, $features)?),
                norm_gradient: instruction_set!(@kernel ($single), norm::norm_gradient, &NormGradient $(, $features)?),
                pool_gradient: instruction_set!(@kernel ($single), pool_gradient::pool_gradient, &PoolGradient $(, $features)?),
            },
        };
    };
    (@kernels $stored:ty, $vector:ty $(, $features:literal)?) => {
        KernelsOf {
            convolve: instruction_set!(@kernel ($vector, $stored), convolution::convolve, &mut Convolve<$stored> $(, $features)?),
            convolve_groups: instruction_set!(@kernel ($vector, $stored), grouped::convolve_groups, &ConvolveGroups<$stored> $(, $features)?),
            strassen: instruction_set!(@kernel ($vector, $stored), strassen::strassen, &mut Strassen<$stored> $(, $features)?),
            transform_inputs: instruction_set!(@kernel ($vector, $stored), winograd::transform_inputs, &TransformInputs<$stored> $(, $features)?),
            multiply: instruction_set!(@kernel ($vector, $stored), winograd::multiply, &Multiply<$stored> $(, $features)?),
            multiply_plain: instruction_set!(@kernel ($vector, $stored), winograd::multiply_plain, &mut MultiplyPlain<$stored> $(, $features)?),
            transform_outputs: instruction_set!(@kernel ($vector, $stored), winograd::transform_outputs, &TransformOutputs<$stored> $(, $features)?),
            pool: instruction_set!(@kernel ($vector, $stored), pool::pool, &PoolPlanes<$stored> $(, $features)?),
            reduce: instruction_set!(@kernel ($vector, $stored), channelwise::reduce, &Reduce<$stored> $(, $features)?),
            affine: instruction_set!(@kernel ($vector, $stored), channelwise::affine, &Affine<$stored> $(, $features)?),
        }
    };
    (@kernel $types:tt, $of:ident::$kernel:ident, $call:ty $(, $features:literal)?) => {{
        $(#[target_feature(enable = $features)])?
        unsafe fn compiled(call: $call) {
            // SAFETY: passed on; the instruction set is the one that this function is compiled under.
            unsafe { instruction_set!(@call $types, $of::$kernel, call) }
        }
        compiled
    }};
    (@call ($vector:ty, $stored:ty), $of:ident::$kernel:ident, $call:ident) => { $of::$kernel::<$vector, $stored>($call) };
    (@call ($vector:ty), $of:ident::$kernel:ident, $call:ident) => { $of::$kernel::<$vector>($call) };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(AVX512, f32: Avx512<false>, "avx512f"; bf16: Avx512<false>, "avx512f");
#[cfg(target_arch = "x86_64")]
instruction_set!(AVX512_BF16, f32: Avx512<false>, "avx512f"; bf16: Avx512<true>, "avx512f,avx512bf16");
#[cfg(target_arch = "x86_64")]
instruction_set!(AVX2, f32: Avx2, "avx2,fma"; bf16: Avx2, "avx2,fma");
#[cfg(target_arch = "aarch64")]
instruction_set!(NEON, f32: Neon, "neon"; bf16: Neon, "neon");
instruction_set!(PORTABLE, f32: Portable; bf16: Portable);

impl Kernels {
    /// The kernels for an instruction set, or the portable ones where it is not available.
    pub(crate) fn of(set: InstructionSet) -> &'static Kernels {
        if !set.is_available() {
            return &PORTABLE;
        }
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if set.multiplies_bf16() => &AVX512_BF16,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => &AVX2,
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => &NEON,
            _ => &PORTABLE,
        }
    }

    /// All that this processor can run, among them what it has a better choice for.
    #[cfg(test)]
    pub(super) fn available() -> Vec<&'static Kernels> {
        let all = InstructionSet::ALL.into_iter().filter(|set| set.is_available()).map(Kernels::of);
        #[cfg(target_arch = "x86_64")]
        let all = all.chain(InstructionSet::Avx512.multiplies_bf16().then_some(&AVX512));
        all.collect()
    }
}
