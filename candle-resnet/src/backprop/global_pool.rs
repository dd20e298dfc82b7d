//! The last map → features, and the way back.

use crate::architecture::GlobalPool;
use crate::kernels::{Buffer, Extent, LANES, blocks_of};

/// A map of `images` images.
#[derive(Clone, Copy)]
pub(super) struct Last {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) extent: Extent,
}

impl Last {
    /// Values of a channel of an image.
    fn pixels<'a>(&self, map: &'a [f32], image: usize, channel: usize) -> impl Iterator<Item = &'a f32> + Clone {
        let first = self.first(image, channel);
        map[first..].iter().step_by(LANES).take(self.extent.pixels())
    }

    fn first(&self, image: usize, channel: usize) -> usize {
        (image * blocks_of(self.channels) + channel / LANES) * self.extent.values(1) + channel % LANES
    }

    /// Where the first largest value of a channel is.
    fn winner(&self, map: &[f32], image: usize, channel: usize) -> usize {
        let pixels = self.pixels(map, image, channel).enumerate();
        let first = |best: (usize, f32), (pixel, &value): (usize, &f32)| {
            if value > best.1 || value.is_nan() { (pixel, value) } else { best }
        };
        pixels.fold((0, f32::NEG_INFINITY), first).0
    }

    /// (images, D).
    pub(super) fn features(&self, map: &Buffer, pool: GlobalPool) -> Vec<f32> {
        let map = map.as_slice();
        let count = self.extent.pixels() as f64;
        let mean = |image, channel| {
            let sum: f64 = self.pixels(map, image, channel).map(|&value| f64::from(value)).sum();
            (sum / count) as f32
        };
        let max = |image, channel| map[self.first(image, channel) + self.winner(map, image, channel) * LANES];
        let mut features = Vec::with_capacity(self.images * self.channels * pool.features_per_channel());
        for image in 0..self.images {
            let channels = 0..self.channels;
            match pool {
                GlobalPool::Average => features.extend(channels.map(|channel| mean(image, channel))),
                GlobalPool::Max => features.extend(channels.map(|channel| max(image, channel))),
                GlobalPool::AverageMax => {
                    features.extend(channels.map(|channel| 0.5 * (mean(image, channel) + max(image, channel))));
                }
                GlobalPool::AverageThenMax => {
                    features.extend(channels.clone().map(|channel| mean(image, channel)));
                    features.extend(channels.map(|channel| max(image, channel)));
                }
            }
        }
        features
    }

    /// The gradient of the features → that of the map.
    pub(super) fn gradient(&self, map: &Buffer, pool: GlobalPool, features: &[f32], to: &mut [f32]) {
        to.fill(0.0);
        let (width, count) = (self.channels * pool.features_per_channel(), self.extent.pixels() as f32);
        for image in 0..self.images {
            let features = &features[image * width..][..width];
            for channel in 0..self.channels {
                let (of_mean, of_max) = match pool {
                    GlobalPool::Average => (features[channel], 0.0),
                    GlobalPool::Max => (0.0, features[channel]),
                    GlobalPool::AverageMax => (0.5 * features[channel], 0.5 * features[channel]),
                    GlobalPool::AverageThenMax => (features[channel], features[self.channels + channel]),
                };
                let first = self.first(image, channel);
                let pixels = to[first..].iter_mut().step_by(LANES).take(self.extent.pixels());
                pixels.for_each(|to| *to = of_mean / count);
                if pool != GlobalPool::Average {
                    to[first + self.winner(map.as_slice(), image, channel) * LANES] += of_max;
                }
            }
        }
    }
}
