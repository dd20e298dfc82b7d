//! Which algorithm computes a convolution: a pure function of its shape and of what the plan is for.

use crate::kernels::{Extent, Scheme};

/// What a plan is mostly used for. It runs anything; this is what it is fast at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Height and width of an image, in pixels.
    pub image: (usize, usize),
    /// Images of a call.
    pub batch: usize,
    /// Images in all, where that is known: packing weights for a single photo takes longer than the photo.
    pub images: Option<usize>,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload { image: (224, 224), batch: 32, images: None }
    }
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// As one matrix product.
    Direct,
    /// By Winograd's method.
    Winograd(Scheme),
}

impl Algorithm {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
            Algorithm::Winograd(Scheme::TwoByTwo) => "F(2×2, 3×3)",
            Algorithm::Winograd(Scheme::FourByFour) => "F(4×4, 3×3)",
            Algorithm::Winograd(Scheme::ThreeByThreeOfFour) => "F(3×3, 4×4)",
        }
    }
}

/// A convolution's shape, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
    /// Of the output.
    pub(crate) extent: Extent,
}

/// Images for which transformed weights are not worth the time that it takes to make them, where they are many.
const FEW_IMAGES: usize = 6;
/// Weights (in × out channels) that take longer to transform than a single image saves.
const MANY_WEIGHTS: usize = 128 * 128;
/// Tiles of a call below which weights are streamed from memory faster in the smaller scheme.
const FEW_TILES: usize = 12;

/// The algorithm for a convolution.
pub(crate) fn choose(candidate: &Candidate, workload: &Workload, low_memory: bool) -> Algorithm {
    let &Candidate { in_channels, out_channels, kernel, stride, dilation, groups, extent } = candidate;
    if low_memory || stride != 1 || dilation != 1 || groups != 1 {
        return Algorithm::Direct;
    }
    let weights = in_channels * out_channels;
    if workload.images.is_some_and(|images| images < FEW_IMAGES) && weights >= MANY_WEIGHTS {
        return Algorithm::Direct;
    }
    match kernel {
        4 => Algorithm::Winograd(Scheme::ThreeByThreeOfFour),
        3 if weights > MANY_WEIGHTS && Scheme::FourByFour.tiles(extent) * workload.batch < FEW_TILES => {
            Algorithm::Winograd(Scheme::TwoByTwo)
        }
        3 => Algorithm::Winograd(Scheme::FourByFour),
        _ => Algorithm::Direct,
    }
}
