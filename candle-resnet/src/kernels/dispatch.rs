//! The kernels compiled once for each instruction set, and the choice between them at run time.

use super::channelwise::{self, Affine, Reduce};
use super::convolution::{self, Convolve};
use super::pool::{self, PoolPlanes};
use super::winograd::{self, Multiply, MultiplyPlain, TransformInputs, TransformOutputs};

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

    /// The fastest that this processor has.
    pub fn best() -> InstructionSet {
        Self::ALL.into_iter().find(|set| set.is_available()).unwrap_or(InstructionSet::Portable)
    }
}

/// Every kernel for one instruction set.
///
/// # Safety
/// Each may be called where the instruction set is available and the call keeps the kernel's own promises.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    /// Channel blocks of the output that a product computes together, where there are as many.
    pub(crate) blocks: usize,
    /// [`convolution::convolve`].
    pub(crate) convolve: unsafe fn(&mut Convolve),
    /// [`winograd::transform_inputs`].
    pub(crate) transform_inputs: unsafe fn(&TransformInputs),
    /// [`winograd::multiply`].
    pub(crate) multiply: unsafe fn(&Multiply),
    /// [`winograd::multiply_plain`].
    pub(crate) multiply_plain: unsafe fn(&mut MultiplyPlain),
    /// [`winograd::transform_outputs`].
    pub(crate) transform_outputs: unsafe fn(&TransformOutputs),
    /// [`pool::pool`].
    pub(crate) pool: unsafe fn(&PoolPlanes),
    /// [`channelwise::reduce`].
    pub(crate) reduce: unsafe fn(&Reduce),
    /// [`channelwise::affine`].
    pub(crate) affine: unsafe fn(&Affine),
}

/// A module with the generic kernels as functions of one vector type, compiled under its instruction set.
macro_rules! instruction_set {
    ($module:ident, $vector:ident $(, $features:literal)?) => {
        mod $module {
            use super::*;
            use super::super::lanes::{Lanes, $vector};

            instruction_set!(@kernel $vector, convolution, convolve, &mut Convolve $(, $features)?);
            instruction_set!(@kernel $vector, winograd, transform_inputs, &TransformInputs $(, $features)?);
            instruction_set!(@kernel $vector, winograd, multiply, &Multiply $(, $features)?);
            instruction_set!(@kernel $vector, winograd, multiply_plain, &mut MultiplyPlain $(, $features)?);
            instruction_set!(@kernel $vector, winograd, transform_outputs, &TransformOutputs $(, $features)?);
            instruction_set!(@kernel $vector, pool, pool, &PoolPlanes $(, $features)?);
            instruction_set!(@kernel $vector, channelwise, reduce, &Reduce $(, $features)?);
            instruction_set!(@kernel $vector, channelwise, affine, &Affine $(, $features)?);

            pub(super) const KERNELS: Kernels = Kernels {
                blocks: $vector::BLOCKS,
                convolve,
                transform_inputs,
                multiply,
                multiply_plain,
                transform_outputs,
                pool,
                reduce,
                affine,
            };
        }
    };
    (@kernel $vector:ident, $of:ident, $kernel:ident, $call:ty $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $kernel(call: $call) {
            // SAFETY: passed on; the instruction set is the one that this function is compiled under.
            unsafe { $of::$kernel::<$vector>(call) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, Avx512, "avx512f");
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, Avx2, "avx2,fma");
#[cfg(target_arch = "aarch64")]
instruction_set!(neon, Neon, "neon");
instruction_set!(portable, Portable);

impl Kernels {
    /// The kernels for an instruction set, or the portable ones where it is not available.
    pub(crate) fn of(set: InstructionSet) -> Kernels {
        if !set.is_available() {
            return portable::KERNELS;
        }
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => neon::KERNELS,
            _ => portable::KERNELS,
        }
    }
}
