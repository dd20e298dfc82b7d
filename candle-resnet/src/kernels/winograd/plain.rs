//! Products with weights that are transformed on the way, some input blocks at a time.

use super::super::lanes::{LANES, Lanes};
use super::super::product::{Finish, Product, product};
use super::super::stored::Stored;
use super::matrices::{INNER, OUTER};
use super::{MultiplyPlain, Scheme, TransformWeights};

/// Taps of the kernel's side.
const TAPS: usize = 3;
/// Bytes of transformed weights that the second-level cache keeps until every point has read its own.
const CACHED_BYTES: usize = 300 << 10;

/// Input blocks whose weights are transformed at once.
fn blocks_at_once(scheme: Scheme, column_blocks: usize) -> usize {
    let of_block = scheme.products() * LANES * column_blocks * LANES * size_of::<f32>();
    (CACHED_BYTES / of_block).max(1)
}

/// Values from one point to the next in transformed weights; off a power of two.
pub(super) fn point_stride(scheme: Scheme, column_blocks: usize) -> usize {
    blocks_at_once(scheme, column_blocks) * LANES * column_blocks * LANES + LANES
}

/// # Safety
/// As [`transform_inputs`](super::transform_inputs); the scheme's kernel is 3×3, its stride 1.
#[inline(always)]
pub(in super::super) unsafe fn multiply_plain<V: Lanes, S: Stored>(call: &mut MultiplyPlain<S>) {
    let scheme = call.tiles.scheme;
    let output_stride = call.tiles.output_stride();
    let weights_stride = point_stride(scheme, call.column_blocks);
    let of_block = TAPS * TAPS * LANES * call.column_blocks * LANES;
    let at_once = blocks_at_once(scheme, call.column_blocks);
    for column in call.range.clone() {
        let block = (column - call.range.start) * call.column_blocks;
        let mut first = 0;
        while first < call.blocks {
            let segments = at_once.min(call.blocks - first);
            // SAFETY: passed on; the scratch holds the transformed weights of `segments` blocks at every point.
            unsafe {
                let weights = call.weights.as_ptr().add((column * call.blocks + first) * of_block);
                let to = call.scratch.as_mut_ptr();
                match scheme.points() {
                    4 => transform::<V, S, 4>(weights, segments, call.column_blocks, to, weights_stride),
                    _ => transform::<V, S, 6>(weights, segments, call.column_blocks, to, weights_stride),
                }
                for point in 0..scheme.products() {
                    let rows = call.tiles.rows_of(point);
                    if rows == 0 {
                        continue; // Every tile is cut, and lacks the point.
                    }
                    let segment_stride = rows * LANES;
                    let input = call.tiles.inputs_of(call.blocks, point) + first * segment_stride;
                    let output = call.products.at(block * output_stride + call.tiles.outputs_of(point));
                    product::<V, S, f32>(&Product {
                        input: call.transformed.as_ptr().add(input),
                        rows,
                        segments,
                        segment_stride,
                        length: LANES,
                        weights: to.add(point * weights_stride),
                        output,
                        block_stride: output_stride,
                        sums: (output, output_stride),
                        blocks: call.column_blocks,
                        heavy: false,
                        accumulate: first > 0,
                        finish: Finish::NOTHING,
                    });
                }
            }
            first += segments;
        }
    }
}

/// # Safety
/// As [`transform_inputs`](super::transform_inputs); the scheme's kernel is 3×3, its stride 1.
#[inline(always)]
pub(in super::super) unsafe fn transform_weights<V: Lanes>(call: &TransformWeights) {
    let of_column = call.blocks * LANES * call.column_blocks * LANES;
    for column in call.range.clone() {
        // SAFETY: passed on.
        unsafe {
            let from = call.weights.as_ptr().add(column * TAPS * TAPS * of_column);
            let (to, stride) = (call.transformed.at(column * of_column), call.columns * of_column);
            match call.scheme.points() {
                4 => transform::<V, f32, 4>(from, call.blocks, call.column_blocks, to, stride),
                _ => transform::<V, f32, 6>(from, call.blocks, call.column_blocks, to, stride),
            }
        }
    }
}

/// G g Gᵀ for input blocks of one column: (blocks, 3, 3, 16, column, 16) → (points, blocks, 16, column, 16), with the last three
/// axes in whatever order.
#[inline(always)]
unsafe fn transform<V: Lanes, S: Stored, const P: usize>(
    from: *const S,
    blocks: usize,
    column_blocks: usize,
    to: *mut S,
    stride: usize,
) {
    let column = column_blocks * LANES;
    let tap_stride = LANES * column;
    for block in 0..blocks {
        for at in 0..LANES * column_blocks {
            // SAFETY: sixteen weights, at every tap and every point.
            unsafe {
                let from = from.add(block * TAPS * TAPS * tap_stride + at * LANES);
                let to = to.add(block * tap_stride + at * LANES);
                let mut half = [[V::splat(0.0); TAPS]; P];
                for x in 0..TAPS {
                    let mut taps = [V::splat(0.0); TAPS];
                    for y in 0..TAPS {
                        taps[y] = S::load(from.add((y * TAPS + x) * tap_stride));
                    }
                    let line = kernel_line::<V, P>(taps);
                    for i in 0..P {
                        half[i][x] = line[i];
                    }
                }
                for i in 0..P {
                    let line = kernel_line::<V, P>(half[i]);
                    for j in 0..P {
                        S::store(line[j], to.add((i * P + j) * stride));
                    }
                }
            }
        }
    }
}

/// G times three taps.
#[inline(always)]
unsafe fn kernel_line<V: Lanes, const P: usize>(g: [V; TAPS]) -> [V; P] {
    // SAFETY: the caller's.
    unsafe {
        let mut t = [V::splat(0.0); P];
        t[P - 1] = g[2];
        if P == 4 {
            t[0] = V::splat(0.0).sub(g[0]);
            [t[1], t[2]] = at_pair(g, 1.0, 2.0);
            return t;
        }
        let (inner, outer) = (INNER * INNER, OUTER * OUTER);
        [t[0], t[1]] = at_pair(g, INNER, 2.0 * inner * (inner - outer));
        [t[2], t[3]] = at_pair(g, OUTER, 2.0 * outer * (outer - inner));
        t[4] = g[0].mul(V::splat(1.0 / (inner * outer)));
        t
    }
}

/// Three taps at a point and at its opposite, over the product of their distances to the others.
#[inline(always)]
unsafe fn at_pair<V: Lanes>(g: [V; TAPS], point: f32, distances: f32) -> [V; 2] {
    // SAFETY: the caller's.
    unsafe {
        let even = g[0].mul_add(V::splat(1.0 / distances), g[2].mul(V::splat(point * point / distances)));
        let odd = g[1].mul(V::splat(point / distances));
        [even.add(odd), even.sub(odd)]
    }
}
