//! The inverse cosine transform of one block, in libjpeg's `islow` arithmetic.
//!
//! The algorithm is Loeffler, Ligtenberg and Moschytz's (ICASSP 1989). Which integers it is computed in decides the last
//! bit: constants have 13 fractional bits, the first pass keeps 2, every rounding is to nearest, up at a half. Numbers that
//! only damaged files have wrap or saturate.

use super::frame::SIDE;

const CONSTANT_BITS: u32 = 13;
/// Fractional bits between the passes.
const PASS_BITS: u32 = 2;
/// Both passes scale by √8, so together by 8.
const GAIN_BITS: u32 = 3;
/// Samples are stored around 0.
const MIDDLE: i16 = 128;

type Row = [i16; SIDE];

/// `block` and `quantization` row by row; the samples go to eight rows of `samples`, `stride` apart.
#[inline(always)]
pub(super) fn transform(block: &[i16; 64], quantization: &[u16; 64], samples: &mut [u8], stride: usize) {
    let mut rows = [[0; SIDE]; SIDE];
    for (value, (&coefficient, &factor)) in rows.as_flattened_mut().iter_mut().zip(block.iter().zip(quantization)) {
        *value = coefficient.wrapping_mul(factor as i16);
    }
    let columns = pass(&rows, CONSTANT_BITS - PASS_BITS);
    let rows = pass(&columns, CONSTANT_BITS + PASS_BITS + GAIN_BITS);
    for (y, row) in rows.iter().enumerate() {
        let out = &mut samples[y * stride..][..SIDE];
        for (sample, &value) in out.iter_mut().zip(row) {
            *sample = to_sample(value);
        }
    }
}

/// The same for a block of which only the DC coefficient is not 0.
#[inline(always)]
pub(super) fn transform_flat(dc: i16, quantization: u16, samples: &mut [u8], stride: usize) {
    let dc = i32::from(dc.wrapping_mul(quantization as i16));
    let sample = to_sample(((dc + (1 << (GAIN_BITS - 1))) >> GAIN_BITS) as i16);
    for y in 0..SIDE {
        samples[y * stride..][..SIDE].fill(sample);
    }
}

#[inline(always)]
fn to_sample(value: i16) -> u8 {
    value.saturating_add(MIDDLE).clamp(0, 255) as u8
}

/// Transforms each column, drops `drop` fractional bits, and puts it down as a row. One loop over all columns, which is
/// what compilers vectorise.
#[inline(always)]
fn pass(rows: &[Row; SIDE], drop: u32) -> [Row; SIDE] {
    let mut out = [[0; SIDE]; SIDE];
    let round = |value: i32| {
        let rounded = value.wrapping_add(1 << (drop - 1)) >> drop;
        rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16
    };
    for column in 0..SIDE {
        let at = |row: usize| i32::from(rows[row][column]);
        let [a, b, c, d] = even([at(0), at(2), at(4), at(6)]);
        let [e, f, g, h] = odd([at(1), at(3), at(5), at(7)]);
        out[column][0] = round(a.wrapping_add(e));
        out[column][1] = round(b.wrapping_add(f));
        out[column][2] = round(c.wrapping_add(g));
        out[column][3] = round(d.wrapping_add(h));
        out[column][4] = round(d.wrapping_sub(h));
        out[column][5] = round(c.wrapping_sub(g));
        out[column][6] = round(b.wrapping_sub(f));
        out[column][7] = round(a.wrapping_sub(e));
    }
    out
}

/// What the even coefficients put into each of the first four outputs; into the others in reverse order.
///
/// Constants are sums of `√2 · cos(k π / 16)` in [`CONSTANT_BITS`]. Sums of 16-bit numbers times them fit into 32 bits.
#[inline(always)]
fn even([x0, x2, x4, x6]: [i32; 4]) -> [i32; 4] {
    let turned = (x2 + x6) * 4433;
    let (inner, outer) = (turned - x6 * 15137, turned + x2 * 6270);
    let (sum, difference) = ((x0 + x4) << CONSTANT_BITS, (x0 - x4) << CONSTANT_BITS);
    [sum + outer, difference + inner, difference - inner, sum - outer]
}

/// What the odd coefficients add to the first four outputs and take from the others.
#[inline(always)]
fn odd([x1, x3, x5, x7]: [i32; 4]) -> [i32; 4] {
    let turned = (x1 + x3 + x5 + x7).wrapping_mul(9633);
    let (z17, z35) = ((x1 + x7).wrapping_mul(-7373), (x3 + x5).wrapping_mul(-20995));
    let (z37, z15) = (turned.wrapping_sub((x3 + x7) * 16069), turned.wrapping_sub((x1 + x5) * 3196));
    [
        (x1 * 12299).wrapping_add(z17).wrapping_add(z15),
        (x3 * 25172).wrapping_add(z35).wrapping_add(z37),
        (x5 * 16819).wrapping_add(z35).wrapping_add(z15),
        (x7 * 2446).wrapping_add(z17).wrapping_add(z37),
    ]
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use proptest::prelude::*;

    fn samples(block: &[i16; 64], quantization: &[u16; 64]) -> [u8; 64] {
        let mut samples = [0; 64];
        transform(block, quantization, &mut samples, SIDE);
        samples
    }

    /// The definition (T.81, A.3.3), in floating point.
    fn defined(block: &[i16; 64], x: usize, y: usize) -> f64 {
        let scale = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1.0 };
        let wave = |n: usize, k: usize| scale(k) * ((2 * n + 1) as f64 * k as f64 * PI / 16.0).cos();
        let term = |v: usize, u: usize| f64::from(block[v * SIDE + u]) * wave(y, v) * wave(x, u);
        (0..SIDE).map(|v| (0..SIDE).map(|u| term(v, u)).sum::<f64>()).sum::<f64>() / 4.0 + 128.0
    }

    proptest! {
        #[test]
        fn samples_are_the_definitions_within_rounding(values in prop::collection::vec((0usize..64, -300i16..300), 0..20)) {
            let mut block = [0; 64];
            values.into_iter().for_each(|(at, value)| block[at] = value);
            for (at, sample) in samples(&block, &[1; 64]).into_iter().enumerate() {
                let defined = defined(&block, at % SIDE, at / SIDE).clamp(0.0, 255.0);
                prop_assert!((f64::from(sample) - defined).abs() < 0.6, "{sample} for {defined}");
            }
        }

        #[test]
        fn flat_blocks_need_no_transform(dc in any::<i16>(), factor in 1u16..256) {
            let mut block = [0; 64];
            block[0] = dc;
            let mut flat = [0; 64];
            transform_flat(dc, factor, &mut flat, SIDE);
            prop_assert_eq!(samples(&block, &[factor; 64]), flat);
        }

        #[test]
        fn absurd_coefficients_give_some_picture(values in prop::collection::vec(any::<i16>(), 64), factor in any::<u16>()) {
            samples(values.as_slice().try_into().unwrap(), &[factor; 64]);
        }
    }
}
