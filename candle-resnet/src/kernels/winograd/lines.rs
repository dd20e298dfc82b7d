//! The one-dimensional transforms of tiles, of which a tile takes one for each of its rows and columns.

use super::super::lanes::Lanes;
use super::matrices::{INNER, OUTER, STRIDED_INNER, STRIDED_OUTER};
use super::side::Side;
use super::{MAX_POINTS, Scheme};

/// Bᵀ times a column.
#[inline(always)]
pub(super) unsafe fn input_line<V: Lanes, const P: usize, const M: usize>(d: [V; P]) -> [V; P] {
    let mut t = d;
    // SAFETY: the caller's.
    unsafe {
        if P == 4 {
            t[0] = d[2].sub(d[0]);
            t[1] = d[1].add(d[2]);
            t[2] = d[2].sub(d[1]);
            t[3] = d[3].sub(d[1]);
        } else if P == 5 {
            return constant_input_line::<V, P, M, M>(d);
        } else if P == 9 {
            let (inner, outer) = (STRIDED_INNER * STRIDED_INNER, STRIDED_OUTER * STRIDED_OUTER);
            let (even, odd) = (d[4].sub(d[0].mul(V::splat(outer))), d[6].sub(d[2].mul(V::splat(outer))));
            t[0] = even.mul_add(V::splat(STRIDED_INNER), odd);
            t[1] = even.mul_add(V::splat(-STRIDED_INNER), odd);
            let (even, odd) = (d[4].sub(d[0].mul(V::splat(inner))), d[6].sub(d[2].mul(V::splat(inner))));
            t[2] = even.mul_add(V::splat(STRIDED_OUTER), odd);
            t[3] = even.mul_add(V::splat(-STRIDED_OUTER), odd);
            t[4] = d[0].mul_add(V::splat(inner * outer), d[4].mul_add(V::splat(-(inner + outer)), d[8]));
            [t[5], t[6], t[7], t[8]] = [d[1], d[3], d[5], d[7]];
        } else {
            let (inner, outer) = (INNER * INNER, OUTER * OUTER);
            let (product, sum) = (V::splat(inner * outer), V::splat(-(inner + outer)));
            let (inner, outer) = (V::splat(-inner), V::splat(-outer));
            let (even, odd) = (d[2].mul_add(outer, d[4]), d[1].mul_add(outer, d[3]));
            t[0] = odd.mul_add(V::splat(INNER), even);
            t[1] = odd.mul_add(V::splat(-INNER), even);
            let (even, odd) = (d[2].mul_add(inner, d[4]), d[1].mul_add(inner, d[3]));
            t[2] = odd.mul_add(V::splat(OUTER), even);
            t[3] = odd.mul_add(V::splat(-OUTER), even);
            t[4] = d[0].mul_add(product, d[2].mul_add(sum, d[4]));
            t[5] = d[1].mul_add(product, d[3].mul_add(sum, d[5]));
        }
    }
    t
}

/// Bᵀ times a column of a side of `outputs`, of which only the pixels that it sees count; the points that it lacks are 0.
#[inline(always)]
pub(super) unsafe fn side_input_line<V: Lanes, const P: usize, const M: usize>(outputs: usize, d: [V; P]) -> [V; P] {
    // SAFETY: the caller's.
    unsafe {
        match outputs {
            1 if M > 1 => constant_input_line::<V, P, M, 1>(d),
            2 if M > 2 => constant_input_line::<V, P, M, 2>(d),
            3 if M > 3 => constant_input_line::<V, P, M, 3>(d),
            _ => input_line::<V, P, M>(d),
        }
    }
}

/// A side of `OUTPUTS` of the scheme that has P points and M outputs.
struct ConstantSide<const P: usize, const M: usize, const OUTPUTS: usize>;

impl<const P: usize, const M: usize, const OUTPUTS: usize> ConstantSide<P, M, OUTPUTS> {
    /// Of a scheme of fewer outputs, which never asks, the whole one.
    const SIDE: Side = Side::new(Scheme::of(P, M), if OUTPUTS < M { OUTPUTS } else { M });
}

/// Bᵀ of a side times a column. Loops are over constants, and leave nothing of zeros and ones.
#[inline(always)]
unsafe fn constant_input_line<V: Lanes, const P: usize, const M: usize, const OUTPUTS: usize>(d: [V; P]) -> [V; P] {
    let side = const { &ConstantSide::<P, M, OUTPUTS>::SIDE };
    // SAFETY: the caller's.
    unsafe {
        let mut t = [V::splat(0.0); P];
        for index in 0..side.count {
            t[side.points()[index]] = dot::<V, P>(&side.input[index], &d);
        }
        t
    }
}

/// The sum of values times factors.
#[inline(always)]
unsafe fn dot<V: Lanes, const P: usize>(factors: &[f32; MAX_POINTS], values: &[V; P]) -> V {
    // SAFETY: the caller's.
    unsafe {
        let mut sum: Option<V> = None;
        for index in 0..P {
            let (factor, value) = (factors[index], values[index]);
            sum = match sum {
                _ if factor == 0.0 => sum,
                None if factor == 1.0 => Some(value),
                None => Some(value.mul(V::splat(factor))),
                Some(sum) if factor == 1.0 => Some(sum.add(value)),
                Some(sum) if factor == -1.0 => Some(sum.sub(value)),
                Some(sum) => Some(value.mul_add(V::splat(factor), sum)),
            };
        }
        sum.unwrap_or(V::splat(0.0))
    }
}

/// Aᵀ times a column.
#[inline(always)]
pub(super) unsafe fn output_line<V: Lanes, const P: usize, const M: usize>(m: [V; P]) -> [V; M] {
    // SAFETY: the caller's.
    unsafe {
        let mut y = [V::splat(0.0); M];
        if P == 4 {
            y[0] = m[0].add(m[1].add(m[2]));
            y[1] = m[1].sub(m[2]).add(m[3]);
            return y;
        }
        if P == 5 {
            return constant_output_line::<V, P, M, M>(m);
        }
        if P == 9 {
            return strided_output_line(m);
        }
        let (sum, difference) = (m[0].add(m[1]), m[0].sub(m[1]));
        let (outer_sum, outer_difference) = (m[2].add(m[3]), m[2].sub(m[3]));
        y[0] = m[4].add(sum).add(outer_sum);
        y[1] = outer_difference.mul_add(V::splat(OUTER), difference.mul(V::splat(INNER)));
        y[2] = outer_sum.mul_add(V::splat(OUTER * OUTER), sum.mul(V::splat(INNER * INNER)));
        if M == 4 {
            let (inner, outer) = (V::splat(INNER * INNER * INNER), V::splat(OUTER * OUTER * OUTER));
            y[3] = outer_difference.mul_add(outer, difference.mul_add(inner, m[5]));
        } else {
            y[2] = y[2].add(m[5]);
        }
        y
    }
}

/// Aᵀ times a column of a strided tile.
#[inline(always)]
unsafe fn strided_output_line<V: Lanes, const P: usize, const M: usize>(m: [V; P]) -> [V; M] {
    // SAFETY: the caller's.
    unsafe {
        let (sum, difference) = (m[0].add(m[1]), m[0].sub(m[1]));
        let (outer_sum, outer_difference) = (m[2].add(m[3]), m[2].sub(m[3]));
        let powers = [1, 2, 3].map(|power| (V::splat(STRIDED_INNER.powi(power)), V::splat(STRIDED_OUTER.powi(power))));
        let mut y = [V::splat(0.0); M];
        y[0] = m[5].add(sum).add(outer_sum);
        y[1] = outer_difference.mul_add(powers[0].1, difference.mul_add(powers[0].0, m[6]));
        y[2] = outer_sum.mul_add(powers[1].1, sum.mul_add(powers[1].0, m[7]));
        y[3] = outer_difference.mul_add(powers[2].1, difference.mul_add(powers[2].0, m[4].add(m[8])));
        y
    }
}

/// Aᵀ times a column of a side of `outputs`, of which only the points that it has count; the outputs that it lacks are 0.
#[inline(always)]
pub(super) unsafe fn side_output_line<V: Lanes, const P: usize, const M: usize>(outputs: usize, m: [V; P]) -> [V; M] {
    // SAFETY: the caller's.
    unsafe {
        match outputs {
            1 if M > 1 => constant_output_line::<V, P, M, 1>(m),
            2 if M > 2 => constant_output_line::<V, P, M, 2>(m),
            3 if M > 3 => constant_output_line::<V, P, M, 3>(m),
            _ => output_line::<V, P, M>(m),
        }
    }
}

/// Aᵀ of a side times a column. Loops are over constants, and leave nothing of zeros and ones.
#[inline(always)]
unsafe fn constant_output_line<V: Lanes, const P: usize, const M: usize, const OUTPUTS: usize>(m: [V; P]) -> [V; M] {
    let side = const { &ConstantSide::<P, M, OUTPUTS>::SIDE };
    // SAFETY: the caller's.
    unsafe {
        let mut had = [V::splat(0.0); P];
        for index in 0..side.count {
            had[index] = m[side.points()[index]];
        }
        let mut y = [V::splat(0.0); M];
        for output in 0..side.outputs {
            y[output] = dot::<V, P>(&side.output[output], &had);
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lanes::{LANES, Portable};
    use super::*;

    const TOLERANCE: f32 = 1e-6;

    fn splat(value: f32) -> Portable {
        // SAFETY: every processor has this instruction set.
        unsafe { Portable::splat(value) }
    }

    fn lane(vector: Portable) -> f32 {
        let mut values = [0.0; LANES];
        // SAFETY: as above, and there is room for a vector.
        unsafe { vector.store(values.as_mut_ptr()) };
        values[0]
    }

    /// The lines that are written by hand make of each unit vector what the matrices say.
    fn check<const P: usize, const M: usize>() {
        for index in 0..P {
            let unit: [Portable; P] = std::array::from_fn(|other| splat(if other == index { 1.0 } else { 0.0 }));
            // SAFETY: as above.
            let (inputs, expected) = unsafe { (input_line::<_, P, M>(unit), constant_input_line::<_, P, M, M>(unit)) };
            for (point, (value, expected)) in inputs.into_iter().zip(expected).enumerate() {
                let difference = (lane(value) - lane(expected)).abs();
                assert!(difference <= TOLERANCE, "{P} {M}: point {point} of pixel {index}: {difference} off");
            }
            // SAFETY: as above.
            let (outputs, expected) =
                unsafe { (output_line::<_, P, M>(unit), constant_output_line::<_, P, M, M>(unit)) };
            for (output, (value, expected)) in outputs.into_iter().zip(expected).enumerate() {
                let difference = (lane(value) - lane(expected)).abs();
                assert!(difference <= TOLERANCE, "{P} {M}: output {output} of point {index}: {difference} off");
            }
        }
    }

    #[test]
    fn transforms_by_hand_are_those_of_the_matrices() {
        check::<4, 2>();
        check::<6, 4>();
        check::<6, 3>();
        check::<9, 4>();
    }
}
