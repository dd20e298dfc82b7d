//! Dense layers on one vector for each image, and their gradients: small, but not so small that one thread should compute them alone.
//!
//! Matrices are row-major. Sums are made in one order, whatever the number of threads.

use crate::kernels::{LANES, Team};

/// A dense layer: I values in, O out.
pub(super) struct Dense {
    /// (O, I).
    pub(super) weight: Vec<f32>,
    /// (O).
    pub(super) bias: Vec<f32>,
}

impl Dense {
    /// (N, I) → (N, O).
    pub(super) fn forward(&self, team: &Team, images: usize, x: &[f32]) -> Vec<f32> {
        let mut to = vec![0.0; images * self.bias.len()];
        team.each_image(images, &mut to, |image, to| {
            let x = row(x, image, images);
            for ((to, bias), weight) in to.iter_mut().zip(&self.bias).zip(self.weight.chunks_exact(x.len())) {
                *to = bias + dot(weight, x);
            }
        });
        to
    }

    /// The gradient of what came out, (N, O) → that of what went in, (N, I).
    pub(super) fn input_gradient(&self, team: &Team, images: usize, gradient: &[f32]) -> Vec<f32> {
        let inputs = self.weight.len() / self.bias.len();
        let mut to = vec![0.0; images * inputs];
        team.each_image(images, &mut to, |image, to| {
            for (&gradient, weight) in row(gradient, image, images).iter().zip(self.weight.chunks_exact(inputs)) {
                add(to, gradient, weight);
            }
        });
        to
    }

    /// The same, and what went in, (N, I) → the gradients of weight and bias.
    pub(super) fn gradients(&self, team: &Team, images: usize, gradient: &[f32], x: &[f32]) -> [Vec<f32>; 2] {
        let (mut weight, mut bias) = (vec![0.0; self.weight.len()], vec![0.0; self.bias.len()]);
        let outputs = bias.len();
        team.each_image(outputs, &mut weight, |output, to| {
            for image in 0..images {
                add(to, gradient[image * outputs + output], row(x, image, images));
            }
        });
        for gradient in gradient.chunks_exact(outputs) {
            add(&mut bias, 1.0, gradient);
        }
        [weight, bias]
    }
}

/// One of `count` rows.
pub(super) fn row(matrix: &[f32], index: usize, count: usize) -> &[f32] {
    let width = matrix.len() / count;
    &matrix[index * width..][..width]
}

/// In sixteen sums, which vectorise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.into_iter().chain(rest).sum()
}

/// `to + factor * from`.
fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}
