//! A convolution of images, stride 2, as one of squares of 2×2 pixels, stride 1: three channels fill tensor cores badly.

use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{DType, Device, Result, Tensor, bail};

use super::number::with_number;
use super::{Number, Values, Window, tensor};

const KERNEL: &str = include_str!(concat!(env!("OUT_DIR"), "/unfold.ptx"));

/// Threads of a block.
const THREADS: u32 = 256;

/// Bytes of neighbouring channels that are read at once: channels are filled up to a multiple of this.
const PACK: usize = 16;

/// From so many channels on, images are better left as they are.
const ENOUGH_CHANNELS: usize = 4;

/// How images become maps of squares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfolding {
    channels: usize,
    /// Of the convolution of images.
    window: Window,
    /// Of the maps.
    dtype: DType,
}

impl Unfolding {
    /// For a convolution of images with so many channels; `None` where it is better left as it is.
    pub(super) fn of(channels: usize, window: Window, dtype: DType) -> Option<Unfolding> {
        let fits = channels < ENOUGH_CHANNELS && window.stride == 2 && window.dilation == 1 && window.groups == 1;
        fits.then_some(Unfolding { channels, window, dtype })
    }

    /// Of the convolution of squares.
    pub(super) fn window(self) -> Window {
        Window { size: self.side(), stride: 1, padding: 0, dilation: 1, groups: 1 }
    }

    /// Squares before the one that an output's first pixel is in; whole squares stand for the border.
    fn before(self) -> usize {
        self.window.padding.div_ceil(2)
    }

    /// Squares that an output depends on, in each direction.
    fn side(self) -> usize {
        self.before() + (self.window.size - 1 - self.window.padding) / 2 + 1
    }

    fn square_channels(self) -> usize {
        (4 * self.channels).next_multiple_of(PACK / self.dtype.size_in_bytes())
    }

    /// (C', C, K, K) → (C', squares' channels, side, side), f32 on the CPU.
    pub(super) fn weights(self, weight: &Tensor) -> Result<Tensor> {
        let (outputs, channels, size, _) = weight.dims4()?;
        let (side, square_channels) = (self.side(), self.square_channels());
        let values = weight.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let mut unfolded = vec![0f32; outputs * square_channels * side * side];
        let shift = 2 * self.before() - self.window.padding; // of the first pixel in its square
        for (index, value) in values.into_iter().enumerate() {
            let (column, row) = (index % size + shift, index / size % size + shift);
            let (channel, output) = (index / size / size % channels, index / size / size / channels);
            let within = (row % 2 * 2 + column % 2) * channels + channel;
            unfolded[((output * square_channels + within) * side + row / 2) * side + column / 2] = value;
        }
        Tensor::from_vec(unfolded, (outputs, square_channels, side, side), &Device::Cpu)
    }

    /// Images (N, C, H, W) → maps (N, H', W', squares' channels).
    pub(super) fn images(self, images: &Tensor) -> Result<Tensor> {
        let images = images.to_dtype(self.dtype)?.contiguous()?;
        with_number!(self.dtype, T => self.launch::<T>(&images))
    }

    fn launch<T: Number>(self, images: &Tensor) -> Result<Tensor> {
        let (count, channels, height, width) = images.dims4()?;
        if channels != self.channels {
            bail!("images with {channels} channels where {} are expected", self.channels);
        }
        let squares = |pixels: usize| self.window.output(pixels) + self.side() - 1;
        let out = [count, squares(height), squares(width), self.square_channels()];
        let Device::Cuda(device) = images.device() else { bail!("cuDNN computes on CUDA devices alone") };
        let values = Values::of(images)?;
        let values = values.view::<T>()?;
        // SAFETY: the kernel writes all of it.
        let mut to = unsafe { device.alloc::<T>(out.iter().product())? };
        let name = format!("unfold_images_{}", T::DTYPE.as_str());
        let function = device.get_or_load_custom_func(&name, "candle_resnet_unfold", KERNEL)?;
        let sizes = [count, channels, height, width, self.before(), out[1], out[2], out[3]].map(|size| size as u32);
        let mut launch = function.builder();
        launch.arg(&values);
        sizes.iter().for_each(|size| _ = launch.arg(size));
        launch.arg(&mut to);
        let blocks = (out[..3].iter().product::<usize>() as u32).div_ceil(THREADS).max(1);
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the slices are as long as the sizes say.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        Ok(tensor(to, &out, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maps that [`Unfolding::images`] makes, as (N, channels, H', W').
    fn squares(unfolding: Unfolding, images: &Tensor) -> Tensor {
        let (count, channels, height, width) = images.dims4().unwrap();
        let sides = [height, width].map(|pixels| unfolding.window.output(pixels) + unfolding.side() - 1);
        let values = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut maps = vec![0f32; count * unfolding.square_channels() * sides[0] * sides[1]];
        for (index, value) in values.into_iter().enumerate() {
            let (column, row) = (index % width, index / width % height);
            let (channel, image) = (index / width / height % channels, index / width / height / channels);
            let [square_row, square_column] = [row, column].map(|place| place / 2 + unfolding.before());
            if square_row < sides[0] && square_column < sides[1] {
                let within = (row % 2 * 2 + column % 2) * channels + channel;
                let plane = image * unfolding.square_channels() + within;
                maps[(plane * sides[0] + square_row) * sides[1] + square_column] = value;
            }
        }
        Tensor::from_vec(maps, (count, unfolding.square_channels(), sides[0], sides[1]), &Device::Cpu).unwrap()
    }

    #[test]
    fn squares_give_what_pixels_give() {
        for (size, padding, channels, dtype) in
            [(7, 3, 3, DType::F32), (7, 3, 3, DType::BF16), (3, 1, 3, DType::F16), (7, 3, 1, DType::F16)]
        {
            for (height, width) in [(32, 32), (33, 40), (31, 29)] {
                let window = Window { size, stride: 2, padding, dilation: 1, groups: 1 };
                let unfolding = Unfolding::of(channels, window, dtype).unwrap();
                let images = Tensor::randn(0f32, 1.0, (2, channels, height, width), &Device::Cpu).unwrap();
                let weight = Tensor::randn(0f32, 1.0, (4, channels, size, size), &Device::Cpu).unwrap();
                let expected = images.conv2d(&weight, padding, 2, 1, 1).unwrap();
                let found = squares(unfolding, &images).conv2d(&unfolding.weights(&weight).unwrap(), 0, 1, 1, 1);
                let difference = (found.unwrap() - expected).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 1e-4);
            }
        }
    }
}
