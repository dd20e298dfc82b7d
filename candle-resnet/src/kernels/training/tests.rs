//! What training needs beside the trunk's kernels, on every instruction set of this machine, beside naive definitions in f64; all memory
//! ends at a page that may not be touched.

use proptest::prelude::*;

use super::super::guarded::Guarded;
use super::super::pack::{Weights, for_convolution, for_winograd};
use super::super::tests::{Case, assert_near, crews, images_of, map_of, pixels, values};
use super::*;

/// (out, in / groups, k, k): the sum over images and pixels of gradient times input.
fn weight_gradient_by_definition(case: &Case, gradient: &[f32]) -> Vec<f64> {
    let (shape, inputs) = (&case.shape, case.inputs::<f32>());
    let (into, out) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let mut found = vec![0.0; shape.out_channels * into * shape.kernel * shape.kernel];
    for (index, found) in found.iter_mut().enumerate() {
        let (tap, pair) = (index % (shape.kernel * shape.kernel), index / (shape.kernel * shape.kernel));
        let (within, output) = (pair % into, pair / into);
        let channel = output / out * into + within;
        for image in 0..case.images {
            for (row, column) in pixels(shape.output) {
                let at = |position: usize, tap: usize| {
                    (position * shape.stride + tap * shape.dilation).wrapping_sub(shape.padding)
                };
                let (y, x) = (at(row, tap / shape.kernel), at(column, tap % shape.kernel));
                if y < shape.input.height && x < shape.input.width {
                    let plane = (image * shape.in_channels + channel) * shape.input.pixels();
                    let input = f64::from(inputs[plane + y * shape.input.width + x]);
                    let plane = (image * shape.out_channels + output) * shape.output.pixels();
                    *found += input * f64::from(gradient[plane + row * shape.output.width + column]);
                }
            }
        }
    }
    found
}

fn check_weight_gradient(case: &Case) {
    let shape = &case.shape;
    let gradient = values::<f32>(case.images * shape.out_channels * shape.output.pixels(), 9);
    let expected = weight_gradient_by_definition(case, &gradient);
    let input = map_of::<f32>(&case.inputs::<f32>(), shape.in_channels, shape.input);
    let gradient = map_of::<f32>(&gradient, shape.out_channels, shape.output);
    let terms = case.images * shape.output.pixels();
    let mut first: Option<Vec<f32>> = None;
    for (kernels, width) in crews() {
        let mut found = Guarded::<f32>::zeros(expected.len());
        found.fill(f32::NAN);
        let mut scratch = Scratch::default();
        Team::gather(kernels, width, |team| {
            team.weight_gradient(shape, case.images, (&input, &gradient), &mut scratch, &mut found)
        });
        assert_near(&found, &expected, 2e-6 * (terms as f64).sqrt().max(1.0), &format!("{case:?}"));
        // One thread comes first, then three.
        match first.take() {
            Some(alone) if width > 1 => assert_eq!(found.to_vec(), alone, "{case:?}"),
            _ => first = Some(found.to_vec()),
        }
    }
}

#[test]
fn weight_gradients_match_the_definition() {
    for case in [
        Case::new((16, 32), 1, (7, 7)),
        Case::new((80, 24), 1, (5, 9)),   // five blocks, which are taken three at a time
        Case::new((16, 16), 1, (40, 60)), // more pixels than are taken at once
        Case::new((3, 16), 3, (9, 8)),
        Case::new((12, 64), 4, (9, 10)), // an image that was unfolded
        Case::new((48, 64), 3, (13, 11)).with(2, 1, 1),
        Case::new((16, 16), 3, (90, 90)), // several bands of rows
        Case::new((32, 32), 3, (12, 12)).with(1, 2, 1),
        Case::new((64, 64), 3, (9, 9)).with(1, 1, 16),
        Case::new((96, 96), 3, (7, 6)).with(2, 1, 2),
        Case::new((32, 64), 1, (8, 7)).with(2, 1, 1),
        Case::new((32, 32), 1, (1, 1)),
    ] {
        check_weight_gradient(&case);
        check_weight_gradient(&Case { images: 3, ..case });
    }
}

/// Weights as the gradient of the input sees them.
fn turned(case: &Case, weights: &[f32]) -> Vec<f32> {
    let (into, out, area) = (case.shape.in_channels, case.shape.out_channels, case.shape.kernel.pow(2));
    let place = |index: usize| {
        let (tap, output, input) = (index % area, index / area % out, index / area / out);
        (output * into + input) * area + area - 1 - tap
    };
    (0..weights.len()).map(|index| weights[place(index)]).collect()
}

#[test]
fn packed_weights_are_those_of_the_trunk_both_ways() {
    for (into, out) in [(16, 32), (32, 16), (40, 70), (64, 64)] {
        let case = Case::new((into, out), 3, (6, 6));
        let weights = case.weights::<f32>();
        for backward in [false, true] {
            let (from, to) = if backward { (out, into) } else { (into, out) };
            let (shape, values) = match backward {
                true => (Case::new((out, into), 3, (6, 6)).shape, turned(&case, &weights)),
                false => (case.shape, weights.clone()),
            };
            let (scale, dense) =
                (vec![1.0; to], DenseWeights { values: &weights, channels: (into, out), kernel: 3, backward });
            let plain =
                Weights { values: &values, scale: &scale, out_channels: to, in_channels: from, kernel: 3, groups: 1 };
            for (kernels, width) in crews() {
                let column_blocks = if blocks_of(to).is_multiple_of(kernels.blocks) { kernels.blocks } else { 1 };
                let (blocks, columns) = (blocks_of(from), blocks_of(to) / column_blocks);
                let mut packed = Guarded::<f32>::zeros(columns * dense.of_column(column_blocks));
                packed.fill(f32::NAN);
                Team::gather(kernels, width, |team| team.pack(&dense, column_blocks, &mut packed));
                assert_eq!(packed.to_vec(), for_convolution::<f32>(&plain, &shape, column_blocks).as_slice());
                for scheme in [Scheme::TwoByTwo, Scheme::FourByFour] {
                    let expected = for_winograd::<f32>(&plain, scheme, column_blocks);
                    let expected: Vec<f64> = expected.as_slice().iter().map(|&value| value.into()).collect();
                    let mut transformed = Guarded::<f32>::zeros(expected.len());
                    Team::gather(kernels, width, |team| {
                        let extent = (blocks, columns);
                        team.transform_weights(scheme, extent, column_blocks, &packed, &mut transformed);
                    });
                    assert_near(&transformed, &expected, 2e-6, &format!("{scheme:?} {into} {out}"));
                }
            }
        }
    }
}

/// (channels, per pixel of all images) of a tensor (images, channels, pixels).
fn of_channel(map: &[f32], channels: usize, pixels: usize) -> Vec<Vec<f64>> {
    let of = |channel: usize| {
        let planes = map.chunks_exact(pixels).skip(channel).step_by(channels);
        planes.flatten().map(|&value| f64::from(value)).collect()
    };
    (0..channels).map(of).collect()
}

#[test]
fn norms_match_their_definition() {
    let (images, channels) = (3, 20);
    for (height, width) in [(1, 1), (5, 3), (31, 17)] {
        let extent = Extent { height, width };
        let count = images * channels * extent.pixels();
        let [x, output, gradient] = [1, 2, 3].map(|seed| values::<f32>(count, seed));
        let [x_map, output_map, gradient_map] = [&x, &output, &gradient].map(|x| map_of::<f32>(x, channels, extent));
        let (blocks, pixels) = (blocks_of(channels), extent.pixels());
        let centres = values::<f32>(blocks * LANES, 4);
        let coefficients = values::<f32>(images * blocks * 3 * LANES, 5);
        let masked: Vec<f32> = gradient.iter().zip(&output).map(|(&g, &o)| if o > 0.0 { g } else { 0.0 }).collect();
        for (kernels, width) in crews() {
            let mut moments = Guarded::<f32>::zeros(images * blocks * 2 * LANES);
            let mut sums = Guarded::<f32>::zeros(images * blocks * 2 * LANES);
            let mut behind = Guarded::<f32>::of(&gradient_map);
            let mut before = Guarded::<f32>::zeros(gradient_map.len());
            Team::gather(kernels, width, |team| {
                team.moments(extent, &x_map, &mut moments);
                let norm = NormInput { extent, output: Some(&output_map), input: &x_map, centres: &centres };
                team.norm_sums(&norm, &mut behind, &mut sums);
                team.norm_gradient(extent, (&gradient_map, &x_map), &coefficients, &mut before);
            });
            assert_eq!(images_of(&behind, channels, extent), masked);
            for image in 0..images {
                let of_image = image * channels * pixels..(image + 1) * channels * pixels;
                let (x, masked) = (&x[of_image.clone()], &masked[of_image]);
                let (x, masked) = (of_channel(x, channels, pixels), of_channel(masked, channels, pixels));
                for channel in 0..channels {
                    let plane = image * blocks + channel / LANES;
                    let near = |found: &[f32], which: usize, expected: f64| {
                        let found = f64::from(found[(2 * plane + which) * LANES + channel % LANES]);
                        assert!((found - expected).abs() < 1e-5 * pixels as f64, "{extent:?}: {found}, {expected}");
                    };
                    let mean = x[channel].iter().sum::<f64>() / pixels as f64;
                    near(&moments, 0, mean);
                    near(&moments, 1, x[channel].iter().map(|x| (x - mean).powi(2)).sum::<f64>() / pixels as f64);
                    near(&sums, 0, masked[channel].iter().sum());
                    let centre = f64::from(centres[channel]);
                    let along = masked[channel].iter().zip(&x[channel]).map(|(g, x)| g * (x - centre));
                    near(&sums, 1, along.sum());
                }
            }
            let expected = gradient.iter().zip(&x).enumerate().map(|(index, (&g, &x))| {
                let (image, channel) = (index / pixels / channels, index / pixels % channels);
                let at = |which: usize| {
                    let plane = image * blocks + channel / LANES;
                    f64::from(coefficients[(3 * plane + which) * LANES + channel % LANES])
                };
                f64::from(g) * at(0) + f64::from(x) * at(1) + at(2)
            });
            let expected: Vec<f64> = expected.collect();
            assert_near(&images_of(&before, channels, extent), &expected, 1e-6, &format!("{extent:?}"));
        }
    }
}

#[test]
fn pools_give_the_gradient_to_whom_it_belongs() {
    let (images, channels) = (2, 20);
    for (height, width) in [(2, 2), (7, 4), (8, 9)] {
        let input = Extent { height, width };
        for (window, stride) in [
            (Window::Max, 1),
            (Window::Max, 2),
            (Window::Mean { zeros: false }, 2),
            (Window::Mean { zeros: true }, 1),
            (Window::Blur, 1),
            (Window::Blur, 2),
        ] {
            let output = Extent { height: height.div_ceil(stride), width: width.div_ceil(stride) };
            // Few values, so that many are equal.
            let x: Vec<f32> =
                values::<f32>(images * channels * input.pixels(), 1).iter().map(|x| (x * 3.0).round()).collect();
            let gradient = values::<f32>(images * channels * output.pixels(), 2);
            let (x_map, gradient_map) =
                (map_of::<f32>(&x, channels, input), map_of::<f32>(&gradient, channels, output));
            for (kernels, crew) in crews() {
                let mut to = Guarded::<f32>::zeros(x_map.len());
                let mut pooled = Guarded::<f32>::zeros(gradient_map.len());
                Team::gather(kernels, crew, |team| {
                    team.pool(window, stride, (input, output), &x_map, &mut pooled);
                    team.pool_gradient((window, stride), (input, output), (&x_map, &gradient_map), &mut to);
                });
                let found = images_of(&to, channels, input);
                // ⟨gradient, pool(x)⟩ = ⟨what it becomes, x⟩: all three pools are linear where the same pixels win.
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
                let (behind, before) = (dot(&gradient, &images_of(&pooled, channels, output)), dot(&found, &x));
                assert!((behind - before).abs() < 1e-3, "{window:?} {stride} {input:?}: {behind}, {before}");
                if window == Window::Max {
                    assert_eq!(found, winners(&x, &gradient, (input, output), stride), "{stride} {input:?}");
                }
            }
        }
    }
}

/// The gradient of a 3×3 max-pool: of equal pixels the first gets it.
fn winners(x: &[f32], gradient: &[f32], (input, output): (Extent, Extent), stride: usize) -> Vec<f32> {
    let mut found = vec![0.0; x.len()];
    let planes = x.chunks_exact(input.pixels()).zip(gradient.chunks_exact(output.pixels()));
    for ((x, gradient), found) in planes.zip(found.chunks_exact_mut(input.pixels())) {
        for ((row, column), gradient) in pixels(output).zip(gradient) {
            let (y, left) = (row * stride, column * stride);
            let rows = y.saturating_sub(1)..(y + 2).min(input.height);
            let seen = rows
                .flat_map(|y| (left.saturating_sub(1)..(left + 2).min(input.width)).map(move |x| y * input.width + x));
            let winner = seen.reduce(|best, other| if x[other] > x[best] { other } else { best });
            found[winner.unwrap()] += gradient;
        }
    }
    found
}

#[test]
fn pixels_are_spread_onto_what_is_there() {
    let (small, large) = (Extent { height: 3, width: 2 }, Extent { height: 6, width: 5 });
    let (from, onto) = (values::<f32>(2 * small.values(1), 1), values::<f32>(2 * large.values(1), 2));
    for onto in [None, Some(onto.as_slice())] {
        for (kernels, width) in crews() {
            let mut to = Guarded::<f32>::zeros(2 * large.values(1));
            to.fill(f32::NAN);
            Team::gather(kernels, width, |team| team.spread_pixels((&from, small), 2, onto, (&mut to, large)));
            for (index, &found) in to.iter().enumerate() {
                let (plane, pixel, lane) = (index / large.values(1), index / LANES % large.pixels(), index % LANES);
                let (row, column) = (pixel / large.width, pixel % large.width);
                let there = onto.map_or(0.0, |onto| onto[index]);
                let comes = if row % 2 == 0 && column % 2 == 0 && row / 2 < 3 && column / 2 < 2 {
                    from[plane * small.values(1) + (row / 2 * small.width + column / 2) * LANES + lane]
                } else {
                    0.0
                };
                assert_eq!(found, there + comes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_weight_gradient_matches_the_definition(
        (into, out) in (1usize..70, 1usize..70),
        kernel in prop::sample::select(vec![1usize, 3, 5]),
        (height, width) in (1usize..14, 1usize..14),
        (stride, dilation) in (1usize..4, 1usize..3),
        images in 1usize..4,
    ) {
        let case = Case { images, ..Case::new((into, out), kernel, (height, width)) };
        check_weight_gradient(&case.with(stride, dilation, 1));
    }
}
