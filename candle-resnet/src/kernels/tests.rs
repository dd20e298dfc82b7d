//! Every kernel, on every instruction set of this machine, beside a naive one in f64; all memory ends at a page that may not be
//! touched. In f32, and in bf16 with values that were rounded before.

use half::bf16;
use proptest::prelude::*;

use super::guarded::Guarded;
use super::*;

/// What may be lost.
trait Tolerance: Stored {
    /// By a product, as a fraction of the largest value that may come out.
    const PRODUCT: f64;
    /// By storing a value of at most 4.
    const STORE: f64;
}

impl Tolerance for f32 {
    const PRODUCT: f64 = 2e-5;
    const STORE: f64 = 1e-6;
}

impl Tolerance for bf16 {
    const PRODUCT: f64 = 1.0 / 64.0;
    const STORE: f64 = 1.0 / 128.0;
}

/// One thread and three, on every instruction set.
pub(super) fn crews() -> impl Iterator<Item = (&'static Kernels, usize)> {
    Kernels::available().into_iter().flat_map(|kernels| [1, 3].map(|width| (kernels, width)))
}

/// Values in -1..1 that look random and are stored exactly.
pub(super) fn values<S: Stored>(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        S::of((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0).value()
    };
    (0..count).map(next).collect()
}

/// (images, channels, height, width) → a map.
pub(super) fn map_of<S: Stored>(images: &[f32], channels: usize, extent: Extent) -> Guarded<S> {
    let of_map = extent.values(blocks_of(channels));
    let unfolding = Unfolding { channels, factor: 1, extent };
    let mut map = Guarded::zeros(images.len() / (channels * extent.pixels()) * of_map);
    let each = images.chunks_exact(channels * extent.pixels());
    each.zip(map.chunks_exact_mut(of_map)).for_each(|(image, map)| unfolding.unfold(image, map));
    map
}

/// A map → (images, channels, height, width).
pub(super) fn images_of<S: Stored>(map: &[S], channels: usize, extent: Extent) -> Vec<f32> {
    let of_map = extent.values(blocks_of(channels));
    let mut images = vec![0.0; map.len() / of_map * channels * extent.pixels()];
    let each = images.chunks_exact_mut(channels * extent.pixels());
    each.zip(map.chunks_exact(of_map)).for_each(|(image, map)| refold(map, channels, extent, image));
    images
}

/// The kernels for convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Takes any shape.
    Product,
    Groups,
    Strassen,
    Winograd(Scheme),
    PlainWinograd(Scheme),
}

/// A convolution with values for all that it takes.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) shape: ConvolutionShape,
    pub(super) images: usize,
    pub(super) residual: bool,
    pub(super) relu: bool,
}

impl Case {
    pub(super) fn new(channels: (usize, usize), kernel: usize, input: (usize, usize)) -> Case {
        let input = Extent { height: input.0, width: input.1 };
        let shape = ConvolutionShape {
            in_channels: channels.0,
            out_channels: channels.1,
            kernel,
            stride: 1,
            dilation: 1,
            padding: kernel / 2,
            input,
            output: input,
            groups: 1,
        };
        Case { shape, images: 1, residual: false, relu: false }
    }

    /// Stride, dilation and groups, with the padding that ResNets have.
    pub(super) fn with(self, stride: usize, dilation: usize, groups: usize) -> Case {
        let shape = ConvolutionShape { stride, dilation, groups, ..self.shape };
        let padding = dilation * (shape.kernel / 2);
        let side = |size: usize| (size + 2 * padding).saturating_sub(dilation * (shape.kernel - 1) + 1) / stride + 1;
        let output = Extent { height: side(shape.input.height), width: side(shape.input.width) };
        Case { shape: ConvolutionShape { padding, output, ..shape }, ..self }
    }

    pub(super) fn inputs<S: Stored>(&self) -> Vec<f32> {
        values::<S>(self.images * self.shape.in_channels * self.shape.input.pixels(), 1)
    }

    pub(super) fn weights<S: Stored>(&self) -> Vec<f32> {
        let ConvolutionShape { in_channels, out_channels, kernel, groups, .. } = self.shape;
        values::<S>(out_channels * in_channels / groups * kernel * kernel, 2)
    }

    fn scale(&self) -> Vec<f64> {
        (0..self.shape.out_channels).map(|channel| [1.0, -0.5, 0.75][channel % 3]).collect()
    }

    fn bias(&self) -> Vec<f32> {
        values::<f32>(self.shape.out_channels, 3)
    }

    fn residuals<S: Stored>(&self) -> Vec<f32> {
        values::<S>(self.images * self.shape.out_channels * self.shape.output.pixels(), 4)
    }

    /// The definition.
    fn expected<S: Stored>(&self) -> Vec<f64> {
        let (inputs, weights) = (self.inputs::<S>(), self.weights::<S>());
        let (bias, residuals) = (self.bias(), self.residuals::<S>());
        let (shape, scale) = (&self.shape, self.scale());
        let (of_group, out_of_group) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
        let mut expected = Vec::new();
        for image in 0..self.images {
            for out in 0..shape.out_channels {
                for (row, column) in pixels(shape.output) {
                    let mut sum = f64::from(bias[out]);
                    for within in 0..of_group {
                        let channel = image * shape.in_channels + out / out_of_group * of_group + within;
                        for (y, x) in pixels(Extent { height: shape.kernel, width: shape.kernel }) {
                            let at = |position: usize, tap: usize| {
                                (position * shape.stride + tap * shape.dilation).wrapping_sub(shape.padding)
                            };
                            let (seen, line) = (at(column, x), at(row, y));
                            if line < shape.input.height && seen < shape.input.width {
                                let input = inputs[(channel * shape.input.height + line) * shape.input.width + seen];
                                let weight = ((out * of_group + within) * shape.kernel + y) * shape.kernel + x;
                                sum += f64::from(input) * f64::from(weights[weight]) * scale[out];
                            }
                        }
                    }
                    if self.residual {
                        sum += f64::from(residuals[expected.len()]);
                    }
                    expected.push(if self.relu { sum.max(0.0) } else { sum });
                }
            }
        }
        expected
    }

    /// What a kernel makes of it.
    fn computed<S: Stored>(&self, (kernels, width): (&'static Kernels, usize), by: By) -> Vec<f32> {
        let ConvolutionShape { in_channels, out_channels, kernel, groups, input, output, padding, .. } = self.shape;
        let even = blocks_of(out_channels).is_multiple_of(kernels.blocks) && groups == 1;
        let column_blocks = if even { kernels.blocks } else { 1 };
        let (values, scale) = (self.weights::<S>(), self.scale());
        let weights =
            Weights { values: &values, scale: &scale, out_channels, in_channels: in_channels / groups, kernel, groups };
        let packed: Buffer<S> = match by {
            By::Winograd(scheme) => for_winograd(&weights, scheme, column_blocks),
            By::Product | By::PlainWinograd(_) => for_convolution(&weights, &self.shape, column_blocks),
            By::Groups => for_groups(&weights),
            By::Strassen => for_strassen(&weights, column_blocks),
        };
        let inputs = map_of::<S>(&self.inputs::<S>(), in_channels, input);
        let residuals = map_of::<S>(&self.residuals::<S>(), out_channels, output);
        let (packed, bias) = (Guarded::of(packed.as_slice()), Guarded::of(&padded(&self.bias())));
        let mut outputs = Guarded::zeros(self.images * output.values(blocks_of(out_channels)));
        outputs.fill(S::of(f32::NAN));
        let layer = Layer {
            images: self.images,
            input: &inputs,
            weights: &packed,
            column_blocks,
            bias: &bias,
            residual: self.residual.then_some(&residuals),
            relu: self.relu,
            output: &mut outputs,
        };
        let mut scratch = Scratch::default();
        let winograd =
            |scheme, plain| WinogradShape { scheme, in_channels, out_channels, groups, plain, input, output, padding };
        Team::gather(kernels, width, |team| match by {
            By::Product => team.convolve(&self.shape, layer, &mut scratch),
            By::Groups => team.convolve_groups(&self.shape, layer),
            By::Strassen => team.strassen(&self.shape, layer, &mut scratch),
            By::Winograd(scheme) => team.winograd(&winograd(scheme, false), layer, &mut scratch),
            By::PlainWinograd(scheme) => team.winograd(&winograd(scheme, true), layer, &mut scratch),
        });
        assert_filled_up_with_zeros(&outputs, out_channels, output);
        images_of(&outputs, out_channels, output)
    }

    /// Whole blocks of channels, no groups.
    fn takes_plain_weights(&self, scheme: Scheme) -> bool {
        scheme.takes_plain_weights() && self.shape.groups == 1 && self.shape.in_channels >= LANES
    }

    /// By the kernel for any shape, and by the one for small groups where it is one.
    fn check_direct(&self) {
        self.check_by(By::Product);
        let ConvolutionShape { in_channels, out_channels, groups, .. } = self.shape;
        if in_channels == out_channels && LANES.is_multiple_of(in_channels / groups) {
            self.check_by(By::Groups);
        }
    }

    fn check_winograd(&self, scheme: Scheme) {
        self.check_by(By::Winograd(scheme));
        if self.takes_plain_weights(scheme) {
            self.check_by(By::PlainWinograd(scheme));
        }
    }

    fn check_by(&self, by: By) {
        self.check_in::<f32>(by);
        // What bf16 loses in transforms of six points is more than a test could tell from an error.
        if !matches!(by, By::Winograd(scheme) | By::PlainWinograd(scheme) if scheme.points() > 4) {
            self.check_in::<bf16>(by);
        }
    }

    fn check_in<S: Tolerance>(&self, by: By) {
        let expected = self.expected::<S>();
        let terms = self.shape.in_channels / self.shape.groups * self.shape.kernel * self.shape.kernel;
        for (kernels, width) in crews() {
            let computed = self.computed::<S>((kernels, width), by);
            assert_near(&computed, &expected, S::PRODUCT * (terms as f64).sqrt(), &format!("{self:?} {by:?}"));
        }
    }
}

pub(super) fn pixels(extent: Extent) -> impl Iterator<Item = (usize, usize)> {
    (0..extent.pixels()).map(move |pixel| (pixel / extent.width, pixel % extent.width))
}

pub(super) fn assert_near(computed: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(computed.len(), expected.len(), "{what}");
    for (index, (&computed, &expected)) in computed.iter().zip(expected).enumerate() {
        let difference = (f64::from(computed) - expected).abs();
        assert!(difference <= tolerance, "{what}: value {index} is {computed}, expected {expected}");
    }
}

/// Channels beyond the last are read by the next layer, against weights of zero: not even NaN may stand there.
fn assert_filled_up_with_zeros<S: Stored>(map: &[S], channels: usize, extent: Extent) {
    for (position, lines) in map.chunks_exact(LANES).enumerate() {
        let block = position / extent.pixels() % blocks_of(channels);
        let used = channels.saturating_sub(block * LANES).min(LANES);
        assert!(lines[used..].iter().all(|&value| value.value() == 0.0), "pixel {position} of the map");
    }
}

#[test]
fn convolutions_of_every_kind_match_the_definition() {
    for case in [
        Case::new((16, 32), 1, (7, 7)),
        Case::new((1040, 32), 1, (3, 5)), // several passes over the reduction
        Case::new((24, 33), 1, (5, 9)),   // channels that fill no block
        Case::new((3, 16), 3, (9, 8)),
        Case::new((3, 64), 7, (17, 15)).with(2, 1, 1),
        Case::new((48, 64), 3, (13, 11)).with(2, 1, 1),
        Case::new((32, 32), 3, (12, 12)).with(1, 2, 1),
        Case::new((64, 64), 3, (10, 10)).with(1, 4, 1),
        Case::new((64, 64), 3, (9, 9)).with(1, 1, 16), // groups of 4 channels
        Case::new((64, 64), 3, (9, 9)).with(2, 1, 8),
        Case::new((96, 96), 3, (7, 6)).with(1, 1, 2), // groups of 48
        Case::new((32, 64), 1, (8, 8)).with(2, 1, 1),
        Case::new((32, 32), 1, (1, 1)),
    ] {
        case.check_direct();
        Case { images: 3, residual: true, relu: true, ..case }.check_direct();
    }
}

#[test]
fn strassen_matches_the_definition_whatever_the_size() {
    for (height, width) in [(1, 1), (1, 2), (7, 7), (8, 5), (13, 14)] {
        for (channels, stride) in [((32, 64), 1), ((96, 128), 1), ((64, 192), 2), ((1088, 64), 1)] {
            let case = Case::new(channels, 1, (height, width)).with(stride, 1, 1);
            case.check_in::<f32>(By::Strassen);
            Case { images: 3, residual: true, relu: true, ..case }.check_in::<f32>(By::Strassen);
        }
    }
}

#[test]
fn winograd_matches_the_definition_whatever_the_size() {
    for (height, width) in [(1, 1), (2, 3), (4, 4), (7, 7), (8, 5), (13, 14), (29, 3)] {
        for scheme in [Scheme::TwoByTwo, Scheme::FourByFour] {
            Case::new((32, 32), 3, (height, width)).check_winograd(scheme);
            let case = Case::new((20, 48), 3, (height, width));
            Case { images: 5, residual: true, relu: true, ..case }.check_winograd(scheme);
        }
        let grouped = |channels, groups| Case::new((channels, channels), 3, (height, width)).with(1, 1, groups);
        grouped(64, 16).check_winograd(Scheme::FourByFour);
        grouped(96, 2).check_winograd(Scheme::FourByFour);
        Case { images: 2, ..Case::new((12, 64), 4, (height, width)) }.check_winograd(Scheme::ThreeByThreeOfFour);
        for (channels, groups) in [((32, 48), 1), ((20, 32), 1), ((96, 96), 2)] {
            let strided = Case::new(channels, 3, (height, width)).with(2, 1, groups);
            for scheme in [Scheme::TwoByTwoStrided, Scheme::FourByFourStrided] {
                strided.check_winograd(scheme);
                Case { images: 5, residual: true, relu: true, ..strided }.check_winograd(scheme);
            }
        }
    }
}

#[test]
fn many_channels_share_the_work_by_columns() {
    let case = Case { images: 2, relu: true, ..Case::new((208, 96), 3, (6, 5)) };
    case.check_winograd(Scheme::FourByFour);
    case.check_direct();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_convolution_matches_the_definition(
        (into, out) in (1usize..70, 1usize..70),
        kernel in prop::sample::select(vec![1usize, 3, 5, 7]),
        (height, width) in (1usize..16, 1usize..16),
        (stride, dilation) in (1usize..4, 1usize..3),
        images in 1usize..4,
        (residual, relu) in any::<(bool, bool)>(),
    ) {
        let case = Case { images, residual, relu, ..Case::new((into, out), kernel, (height, width)) };
        case.with(stride, dilation, 1).check_direct();
    }

    #[test]
    fn any_convolution_of_small_groups_matches_the_definition(
        of_group in prop::sample::select(vec![1usize, 2, 4, 8, 16]),
        groups in 1usize..9,
        kernel in prop::sample::select(vec![1usize, 3, 5]),
        (height, width) in (1usize..40, 1usize..40),
        (stride, dilation) in (1usize..4, 1usize..3),
        (residual, relu) in any::<(bool, bool)>(),
    ) {
        let channels = of_group * groups;
        let case = Case { residual, relu, ..Case::new((channels, channels), kernel, (height, width)) };
        case.with(stride, dilation, groups).check_by(By::Groups);
    }

    #[test]
    fn any_winograd_matches_the_definition(
        (into, out) in (1usize..70, 1usize..70),
        (height, width) in (1usize..16, 1usize..16),
        images in 1usize..4,
        scheme in prop::sample::select(vec![
            Scheme::TwoByTwo,
            Scheme::FourByFour,
            Scheme::ThreeByThreeOfFour,
            Scheme::TwoByTwoStrided,
            Scheme::FourByFourStrided,
        ]),
    ) {
        let case = Case { images, ..Case::new((into, out), scheme.kernel(), (height, width)) };
        let case = if scheme.stride() > 1 { case.with(scheme.stride(), 1, 1) } else { case };
        case.check_winograd(scheme);
    }
}

/// The window of a pool at one pixel, in f64.
fn pooled(plane: &[f32], extent: Extent, window: Window, (y, x): (usize, usize)) -> f64 {
    let at = |row: usize, column: usize| f64::from(plane[row * extent.width + column]);
    let around = |centre: usize, size: usize| centre.saturating_sub(1)..(centre + 2).min(size);
    match window {
        Window::Max => {
            let rows = around(y, extent.height);
            rows.flat_map(|row| around(x, extent.width).map(move |column| at(row, column))).fold(f64::MIN, f64::max)
        }
        Window::Mean { zeros } => {
            let inside = |row: usize, column: usize| row < extent.height && column < extent.width;
            let seen: Vec<f64> = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)]
                .into_iter()
                .filter(|&(row, column)| inside(row, column))
                .map(|(row, column)| at(row, column))
                .collect();
            seen.iter().sum::<f64>() / if zeros { 4.0 } else { seen.len() as f64 }
        }
        Window::Blur => {
            let reflect = |centre: usize, step: usize, size: usize| match (centre + step).checked_sub(1) {
                None => 1,
                Some(position) if position == size => size - 2,
                Some(position) => position,
            };
            let taps = [0.25, 0.5, 0.25];
            let pairs = (0..9).map(|tap| (tap / 3, tap % 3));
            pairs.map(|(i, j)| taps[i] * taps[j] * at(reflect(y, i, extent.height), reflect(x, j, extent.width))).sum()
        }
    }
}

#[test]
fn pools_match_the_definition_at_every_edge() {
    pools_match_the_definition::<f32>();
    pools_match_the_definition::<bf16>();
}

fn pools_match_the_definition<S: Tolerance>() {
    let channels = 20;
    for (height, width) in [(2, 2), (3, 7), (8, 8), (9, 5)] {
        let input = Extent { height, width };
        let images = values::<S>(2 * channels * input.pixels(), 5);
        let map = map_of::<S>(&images, channels, input);
        for (window, stride) in [
            (Window::Max, 1),
            (Window::Max, 2),
            (Window::Mean { zeros: false }, 2),
            (Window::Mean { zeros: true }, 1),
            (Window::Blur, 1),
            (Window::Blur, 2),
        ] {
            let output = Extent { height: height.div_ceil(stride), width: width.div_ceil(stride) };
            let planes = images.chunks_exact(input.pixels());
            let expected: Vec<f64> = planes
                .flat_map(|plane| {
                    pixels(output).map(move |(y, x)| pooled(plane, input, window, (y * stride, x * stride)))
                })
                .collect();
            for (kernels, width) in crews() {
                let mut to = Guarded::<S>::zeros(2 * output.values(blocks_of(channels)));
                Team::gather(kernels, width, |team| team.pool(window, stride, (input, output), &map, &mut to));
                let computed = images_of(&to, channels, output);
                assert_near(&computed, &expected, S::STORE, &format!("{window:?} / {stride} of {height}×{width}"));
            }
        }
    }
}

#[test]
fn reductions_and_affine_maps_match_the_definition() {
    reductions_and_affine_maps_match::<f32>();
    reductions_and_affine_maps_match::<bf16>();
}

fn reductions_and_affine_maps_match<S: Tolerance>() {
    let (channels, extent) = (20, Extent { height: 5, width: 7 });
    let images = values::<S>(2 * channels * extent.pixels(), 6);
    let map = map_of::<S>(&images, channels, extent);
    let planes: Vec<&[f32]> = images.chunks_exact(extent.pixels()).collect();
    let pixel = Extent { height: 1, width: 1 };
    let mean = |plane: &[f32]| plane.iter().map(|&value| f64::from(value)).sum::<f64>() / plane.len() as f64;
    let largest = |plane: &[f32]| plane.iter().fold(f64::MIN, |largest, &value| largest.max(value.into()));
    let spread =
        |plane: &[f32]| plane.iter().map(|&value| (f64::from(value) - 0.25).powi(2)).sum::<f64>() / plane.len() as f64;
    let centres = Guarded::of(&[0.25; 2 * 2 * LANES]);
    for (kernels, width) in crews() {
        let reduced = |reduction| {
            let mut to = Guarded::<f32>::zeros(2 * 2 * LANES);
            Team::gather(kernels, width, |team| team.reduce(reduction, extent, &map, &centres, &mut to));
            images_of(&to, channels, pixel)
        };
        let of_planes = |number: &dyn Fn(&[f32]) -> f64| planes.iter().map(|plane| number(plane)).collect::<Vec<f64>>();
        assert_near(&reduced(Reduction::Mean), &of_planes(&mean), 1e-6, "mean");
        assert_near(&reduced(Reduction::Max), &of_planes(&largest), 0.0, "max");
        assert_near(&reduced(Reduction::Spread), &of_planes(&spread), 1e-6, "spread");

        let (scale, shift) = (values::<f32>(2 * channels, 7), values::<f32>(2 * channels, 8));
        let mut to = Guarded::<S>::zeros(map.len());
        let change = Change {
            from: &map,
            scale: &map_of(&scale, channels, pixel),
            shift: &map_of(&shift, channels, pixel),
            residual: Some(&map),
            relu: true,
        };
        Team::gather(kernels, width, |team| team.affine(extent, &change, &mut to));
        let expected = images.iter().enumerate().map(|(index, &value)| {
            let plane = index / extent.pixels();
            f64::from(value * scale[plane] + shift[plane] + value).max(0.0)
        });
        assert_near(&images_of(&to, channels, extent), &expected.collect::<Vec<_>>(), S::STORE, "affine");
    }
}

#[test]
fn not_a_number_passes_through_a_relu() {
    let case = Case { relu: true, ..Case::new((16, 16), 1, (1, 1)) };
    for (kernels, width) in crews() {
        let weights = Buffer::of(&[f32::NAN; 256]);
        let (input, bias, mut output) = (Buffer::of(&[1.0; 16]), Buffer::zeros(16), Buffer::<f32>::zeros(16));
        let layer = Layer {
            images: 1,
            input: input.as_slice(),
            weights: weights.as_slice(),
            column_blocks: 1,
            bias: bias.as_slice(),
            residual: None,
            relu: true,
            output: output.as_mut_slice(),
        };
        Team::gather(kernels, width, |team| team.convolve(&case.shape, layer, &mut Scratch::default()));
        assert!(output.as_slice().iter().all(|value| value.is_nan()));
    }
}

#[test]
#[should_panic]
fn a_buffer_that_is_too_short_is_refused() {
    let case = Case::new((16, 16), 3, (4, 4));
    let (input, weights, bias) = (Buffer::zeros(16 * 16), Buffer::zeros(9 * 16 * 16), Buffer::zeros(16));
    let mut output = vec![0.0; 16 * 16 - 1];
    let layer = Layer {
        images: 1,
        input: input.as_slice(),
        weights: weights.as_slice(),
        column_blocks: 1,
        bias: bias.as_slice(),
        residual: None,
        relu: false,
        output: &mut output,
    };
    let team = Team::alone(Kernels::of(InstructionSet::best()));
    team.convolve(&case.shape, layer, &mut Scratch::default());
}

#[test]
fn unfolding_and_refolding_are_each_others_inverse() {
    let (channels, extent) = (3, Extent { height: 5, width: 4 });
    let image = values::<f32>(channels * extent.pixels(), 9);
    assert_eq!(images_of(&map_of::<f32>(&image, channels, extent), channels, extent), image);
    let unfolding = Unfolding { channels, factor: 2, extent };
    assert_eq!(unfolding.unfolded_extent(), Extent { height: 3, width: 2 });
    let mut map = vec![0f32; unfolding.unfolded_extent().values(1)];
    unfolding.unfold(&image, &mut map);
    // Row 1, column 3 of channel 2: pixel (0, 1) of the map, its odd row and odd column.
    assert_eq!(map[LANES + 3 * channels + 2], image[2 * extent.pixels() + extent.width + 3]);
    // Below the last row there is nothing.
    assert!(map[4 * LANES + 2 * channels..5 * LANES].iter().all(|&value| value == 0.0));
}

#[test]
fn bf16_is_rounded_to_the_nearest_and_to_even_where_two_are() {
    let pixel = Extent { height: 1, width: 1 };
    // All last bits that can be lost, around one, and what has no neighbours.
    let near_one = (0..0x4_0000).step_by(0x123).map(|lost| f32::from_bits(0x3f80_0000 + lost));
    let ties = (0..64).map(|even| f32::from_bits(0x3f80_8000 + (even << 16)));
    let edges = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 1e30, -3e-30];
    let mut numbers: Vec<f32> = near_one.chain(ties).chain(edges).collect();
    numbers.resize(numbers.len().next_multiple_of(LANES), 0.0);
    let expected: Vec<f32> = numbers.iter().map(|&number| bf16::from_f32(number).to_f32()).collect();
    let ones = vec![bf16::ONE; numbers.len()];
    let zeros = vec![0.0; numbers.len()];
    for kernels in Kernels::available() {
        let mut to = vec![bf16::ZERO; numbers.len()];
        let change = Change { from: &ones, scale: &numbers, shift: &zeros, residual: None, relu: false };
        Team::alone(kernels).affine(pixel, &change, &mut to);
        assert_eq!(to.iter().map(|value| value.to_f32()).collect::<Vec<_>>(), expected);
    }
}
