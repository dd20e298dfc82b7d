//! Which algorithm computes a convolution: a pure function of its shape and of what the plan is for.

use super::{PlanOptions, Precision};
use crate::kernels::{Extent, LANES, Scheme};

/// What a plan is mostly used for. It runs anything; this is what it is fast at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Height and width of an image, in pixels.
    pub image: (usize, usize),
    /// Images of a call.
    pub batch: usize,
    /// Threads that share a call.
    pub threads: usize,
    /// Images in all, where that is known: packing weights for a single photo takes longer than the photo.
    pub images: Option<usize>,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload { image: (224, 224), batch: 32, threads: rayon::current_num_threads(), images: None }
    }
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// As one matrix product.
    Direct,
    /// As seven matrix products of half the rows, inputs and outputs in the place of eight, of weights 7/4 as large.
    Strassen,
    /// Without the multiplications between groups of a block.
    Grouped,
    /// By Winograd's method, with weights transformed beforehand.
    Winograd(Scheme),
    /// By Winograd's method, with weights transformed on the way: a quarter or half of the memory to hold and to read.
    Plain(Scheme),
}

impl Algorithm {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
            Algorithm::Strassen => "Strassen",
            Algorithm::Grouped => "grouped",
            Algorithm::Plain(Scheme::TwoByTwo) => "F(2×2, 3×3) plain",
            Algorithm::Plain(_) => "F(4×4, 3×3) plain",
            Algorithm::Winograd(Scheme::TwoByTwo) => "F(2×2, 3×3)",
            Algorithm::Winograd(Scheme::FourByFour) => "F(4×4, 3×3)",
            Algorithm::Winograd(Scheme::ThreeByThreeOfFour) => "F(3×3, 4×4)",
            Algorithm::Winograd(Scheme::TwoByTwoStrided) => "F(2×2, 3×3) / 2",
            Algorithm::Winograd(Scheme::FourByFourStrided) => "F(4×4, 3×3) / 2",
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

/// Images for which it is not worth the time to transform many weights beforehand.
const FEW_IMAGES: usize = 6;
/// Weights (in × out channels) that take longer to transform beforehand than a single image saves.
const MANY_WEIGHTS: usize = 128 * 128;
/// Tiles for each thread below which the smaller scheme is faster: its weights are fewer, and to read them takes the time. All
/// threads read from one memory, but each computes on its own.
const FEW_TILES: usize = 12;

/// Channels in and out from which on Strassen's method saves time.
const SPLIT_CHANNELS: usize = 256;
/// Pixels of the output from which on it does: fewer pairs leave registers empty.
const SPLIT_PIXELS: usize = 28;

/// The algorithm for a convolution.
///
/// F(4×4) and its like add up what nearly cancels: in bf16 too little would be left.
pub(crate) fn choose(candidate: &Candidate, options: &PlanOptions) -> Algorithm {
    let &PlanOptions { precision, ref workload, low_memory, .. } = options;
    let &Candidate { in_channels, out_channels, kernel, stride, dilation, groups, extent } = candidate;
    if groups > 1 && in_channels == out_channels && LANES.is_multiple_of(in_channels / groups) {
        return Algorithm::Grouped;
    }
    if kernel == 1 && strassen_saves(candidate, options) {
        return Algorithm::Strassen;
    }
    let many = in_channels * out_channels / groups >= MANY_WEIGHTS;
    let few_tiles = many && Scheme::FourByFour.tiles(extent) * workload.batch < FEW_TILES * workload.threads;
    let few_images = workload.images.is_some_and(|images| images < FEW_IMAGES);
    let pays = precision == Precision::F32 && !low_memory && !few_images;
    let scheme = match kernel {
        3 if stride == 2 && dilation == 1 && groups == 1 && pays => {
            let scheme = if few_tiles { Scheme::TwoByTwoStrided } else { Scheme::FourByFourStrided };
            return Algorithm::Winograd(scheme);
        }
        _ if stride != 1 || dilation != 1 => return Algorithm::Direct,
        3 if precision == Precision::Bf16 => Scheme::TwoByTwo,
        4 if precision == Precision::F32 => return Algorithm::Winograd(Scheme::ThreeByThreeOfFour),
        3 if few_tiles => Scheme::TwoByTwo,
        3 => Scheme::FourByFour,
        _ => return Algorithm::Direct,
    };
    if many && groups == 1 && (low_memory || few_images) {
        Algorithm::Plain(scheme)
    } else {
        Algorithm::Winograd(scheme)
    }
}

/// Whether additions, and weights 7/4 as large, cost less than an eighth of the multiplications of a 1×1 convolution.
fn strassen_saves(candidate: &Candidate, options: &PlanOptions) -> bool {
    let &PlanOptions { precision, ref workload, low_memory, .. } = options;
    let &Candidate { in_channels, out_channels, groups, extent, .. } = candidate;
    let few_images = workload.images.is_some_and(|images| images < FEW_IMAGES);
    let halves = groups == 1 && in_channels.is_multiple_of(2 * LANES) && out_channels.is_multiple_of(4 * LANES);
    let (narrow, wide) = (in_channels.min(out_channels), in_channels.max(out_channels));
    let large = narrow >= SPLIT_CHANNELS && extent.pixels() >= SPLIT_PIXELS;
    // Threads that read heavier weights at the same time wait for memory where a pixel has less to do with each of them.
    let fed = workload.threads == 1 || wide <= 2 * narrow;
    precision == Precision::F32 && !low_memory && !few_images && halves && large && fed
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Workload = Workload { image: (224, 224), batch: 32, threads: 2, images: None };
    const ONE: Workload = Workload { image: (224, 224), batch: 1, threads: 1, images: None };
    const ONE_SHARED: Workload = Workload { threads: 2, ..ONE };
    const ONE_EVER: Workload = Workload { images: Some(1), ..ONE };

    const DIRECT: Algorithm = Algorithm::Direct;
    const STRASSEN: Algorithm = Algorithm::Strassen;
    const F2: Algorithm = Algorithm::Winograd(Scheme::TwoByTwo);
    const F4: Algorithm = Algorithm::Winograd(Scheme::FourByFour);
    const PLAIN_F2: Algorithm = Algorithm::Plain(Scheme::TwoByTwo);
    const PLAIN_F4: Algorithm = Algorithm::Plain(Scheme::FourByFour);
    const STEM: Algorithm = Algorithm::Winograd(Scheme::ThreeByThreeOfFour);
    const SMALL_STRIDED: Algorithm = Algorithm::Winograd(Scheme::TwoByTwoStrided);
    const STRIDED: Algorithm = Algorithm::Winograd(Scheme::FourByFourStrided);

    fn square(channels: usize, kernel: usize, side: usize) -> Candidate {
        let extent = Extent { height: side, width: side };
        Candidate { in_channels: channels, out_channels: channels, kernel, stride: 1, dilation: 1, groups: 1, extent }
    }

    #[test]
    fn each_shape_has_its_algorithm() {
        let strided = Candidate { stride: 2, ..square(128, 3, 28) };
        let dilated = Candidate { dilation: 2, ..square(512, 3, 28) };
        let grouped = Candidate { groups: 32, ..square(1024, 3, 7) };
        let in_blocks = Candidate { groups: 32, stride: 2, ..square(256, 3, 28) };
        let stem = Candidate { out_channels: 64, ..square(12, 4, 112) };
        let widening = Candidate { out_channels: 1024, ..square(256, 1, 14) };
        for (candidate, workload, expected, with_little_memory) in [
            (square(64, 1, 56), MANY, DIRECT, DIRECT),
            (square(256, 1, 14), MANY, STRASSEN, DIRECT),
            (square(256, 1, 14), ONE_EVER, DIRECT, DIRECT),
            (widening, ONE, STRASSEN, DIRECT),
            (widening, ONE_SHARED, DIRECT, DIRECT),
            (square(128, 1, 56), MANY, DIRECT, DIRECT),
            (square(512, 1, 1), MANY, DIRECT, DIRECT),
            (square(64, 3, 56), MANY, F4, F4),
            (square(64, 3, 56), ONE, F4, F4),
            (square(64, 3, 56), ONE_EVER, F4, F4),
            (square(256, 3, 14), MANY, F4, PLAIN_F4),
            (square(256, 3, 14), ONE, F4, PLAIN_F4),
            (square(256, 3, 14), ONE_SHARED, F2, PLAIN_F2),
            (square(256, 3, 14), ONE_EVER, PLAIN_F4, PLAIN_F4),
            (square(512, 3, 7), MANY, F4, PLAIN_F4),
            (square(512, 3, 7), ONE, F2, PLAIN_F2),
            (square(512, 3, 7), ONE_EVER, PLAIN_F2, PLAIN_F2),
            (grouped, MANY, F4, F4),
            (grouped, ONE, F2, F2),
            (in_blocks, MANY, Algorithm::Grouped, Algorithm::Grouped),
            (in_blocks, ONE_EVER, Algorithm::Grouped, Algorithm::Grouped),
            (strided, MANY, STRIDED, DIRECT),
            (strided, ONE, STRIDED, DIRECT),
            (strided, ONE_EVER, DIRECT, DIRECT),
            (Candidate { stride: 2, ..square(512, 3, 7) }, MANY, STRIDED, DIRECT),
            (Candidate { stride: 2, ..square(512, 3, 7) }, ONE, SMALL_STRIDED, DIRECT),
            (Candidate { stride: 2, ..square(256, 3, 14) }, ONE_SHARED, SMALL_STRIDED, DIRECT),
            (dilated, MANY, DIRECT, DIRECT),
            (stem, ONE, STEM, STEM),
            (square(12, 2, 112), MANY, DIRECT, DIRECT),
        ] {
            let options = PlanOptions { workload, ..PlanOptions::default() };
            assert_eq!(choose(&candidate, &options), expected, "{candidate:?} {workload:?}");
            let options = PlanOptions { low_memory: true, ..options };
            assert_eq!(choose(&candidate, &options), with_little_memory, "{candidate:?} {workload:?}");
        }
    }

    #[test]
    fn bf16_takes_no_scheme_that_multiplies_errors() {
        let stem = Candidate { out_channels: 64, ..square(12, 4, 112) };
        let strided = Candidate { stride: 2, ..square(128, 3, 28) };
        for (candidate, expected) in [
            (square(512, 1, 14), DIRECT),
            (square(64, 3, 56), F2),
            (square(512, 3, 7), F2),
            (stem, DIRECT),
            (strided, DIRECT),
        ] {
            let options = PlanOptions { workload: MANY, precision: Precision::Bf16, ..PlanOptions::default() };
            assert_eq!(choose(&candidate, &options), expected, "{candidate:?}");
        }
    }
}
