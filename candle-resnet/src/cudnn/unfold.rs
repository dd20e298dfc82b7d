//! A convolution of images, stride 2, as one of squares of 2×2 pixels, stride 1: three channels fill tensor cores badly.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg};
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
pub(crate) struct Unfolding {
    channels: usize,
    /// Of the convolution of images.
    window: Window,
    /// Of the maps.
    dtype: DType,
}

impl Unfolding {
    /// For a convolution of images with so many channels; `None` where it is better left as it is.
    pub(crate) fn of(channels: usize, window: Window, dtype: DType) -> Option<Unfolding> {
        let fits = channels < ENOUGH_CHANNELS && window.stride == 2 && window.dilation == 1 && window.groups == 1;
        fits.then_some(Unfolding { channels, window, dtype })
    }

    /// Of the convolution of squares.
    pub(crate) fn window(self) -> Window {
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

    /// Where a kernel's first pixel is in its square.
    fn shift(self) -> usize {
        2 * self.before() - self.window.padding
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
        let shift = self.shift();
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
        let (count, _, height, width) = images.dims4()?;
        let Device::Cuda(device) = images.device() else { bail!("cuDNN computes on CUDA devices alone") };
        with_number!(self.dtype, T => {
            self.maps::<T>(images).map(|maps| tensor(maps, &self.dims(count, height, width), device))
        })
    }

    /// Of the maps of so many images, (N, H', W', squares' channels).
    pub(crate) fn dims(self, count: usize, height: usize, width: usize) -> [usize; 4] {
        let squares = |pixels: usize| self.window.output(pixels) + self.side() - 1;
        [count, squares(height), squares(width), self.square_channels()]
    }

    /// Images (N, C, H, W) of any kind → maps (N, H', W', squares' channels) of the kind that it is for.
    pub(crate) fn maps<T: Number>(self, images: &Tensor) -> Result<CudaSlice<T>> {
        let images = images.to_dtype(T::DTYPE)?.contiguous()?;
        let (count, channels, height, width) = images.dims4()?;
        if channels != self.channels {
            bail!("images with {channels} channels where {} are expected", self.channels);
        }
        let Device::Cuda(device) = images.device() else { bail!("cuDNN computes on CUDA devices alone") };
        let out = self.dims(count, height, width);
        let sizes = [count, channels, height, width, self.before(), out[1], out[2], out[3]];
        let threads = out[..3].iter().product();
        let values = Values::of(&images)?;
        launch::<T, _, _>(device, "unfold_images", &values.view::<T>()?, &sizes, threads, out.iter().product())
    }

    /// (C', C, K, K) → (C', side, side, squares' channels).
    pub(crate) fn pack_weights<T: Number>(self, device: &CudaDevice, weights: &CudaView<f32>) -> Result<CudaSlice<T>> {
        let outputs = weights.len() / self.weights_of_an_output();
        check(weights.len(), outputs * self.weights_of_an_output())?;
        let values = outputs * self.packed_weights_of_an_output();
        launch::<T, _, _>(device, "pack_weights", weights, &self.weight_sizes(outputs), values, values)
    }

    /// (C', side, side, squares' channels) → (C', C, K, K).
    pub(crate) fn unpack_weights<T: Number>(
        self,
        device: &CudaDevice,
        weights: &CudaSlice<T>,
    ) -> Result<CudaSlice<f32>> {
        let outputs = weights.len() / self.packed_weights_of_an_output();
        check(weights.len(), outputs * self.packed_weights_of_an_output())?;
        let values = outputs * self.weights_of_an_output();
        launch::<T, _, _>(device, "unpack_weights", &weights.slice(..), &self.weight_sizes(outputs), values, values)
    }

    fn weights_of_an_output(self) -> usize {
        self.channels * self.window.size.pow(2)
    }

    fn packed_weights_of_an_output(self) -> usize {
        self.square_channels() * self.side().pow(2)
    }

    /// As the kernels take it.
    fn weight_sizes(self, outputs: usize) -> [usize; 6] {
        [outputs, self.channels, self.window.size, self.side(), self.square_channels(), self.shift()]
    }
}

fn check(found: usize, wanted: usize) -> Result<()> {
    if found != wanted {
        bail!("a kernel was given {found} weights where it takes {wanted}");
    }
    Ok(())
}

/// Starts a kernel for maps of `T` that makes `values` in so many threads.
fn launch<T: Number, From: DeviceRepr, To: DeviceRepr>(
    device: &CudaDevice,
    name: &str,
    from: &CudaView<'_, From>,
    sizes: &[usize],
    threads: usize,
    values: usize,
) -> Result<CudaSlice<To>> {
    // SAFETY: the kernel writes all of it.
    let mut to = unsafe { device.alloc::<To>(values)? };
    let name = format!("{name}_{}", T::DTYPE.as_str());
    let function = device.get_or_load_custom_func(&name, "candle_resnet_unfold", KERNEL)?;
    let sizes: Vec<u32> = sizes.iter().map(|&size| size as u32).collect();
    let mut launch = function.builder();
    launch.arg(from);
    sizes.iter().for_each(|size| _ = launch.arg(size));
    launch.arg(&mut to);
    let blocks = (threads as u32).div_ceil(THREADS).max(1);
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the callers' slices are as long as the sizes say.
    unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use half::{bf16, f16};

    use super::super::fused::tests::distance;
    use super::super::{TrainableConv, channels_last, handle};
    use super::*;
    use crate::device::device;

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

    /// On the device, in halves: what comes out, and the gradient of weights.
    #[test]
    fn a_convolution_of_squares_trains_as_one_of_pixels() {
        let Device::Cuda(cuda) = device() else { return };
        for (size, padding) in [(7, 3), (3, 1)] {
            for side in [32, 33] {
                let window = Window { size, stride: 2, padding, dilation: 1, groups: 1 };
                let images = Tensor::randn(0f32, 1.0, (2, 3, side, side), &Device::Cpu).unwrap();
                let weight = Var::from_tensor(&Tensor::randn(0f32, 0.1, (16, 3, size, size), &Device::Cpu).unwrap());
                let weight = weight.unwrap();
                let expected = images.conv2d(&weight, padding, 2, 1, 1).unwrap();
                let gradient = expected.randn_like(0.0, 0.1).unwrap().detach();
                let loss = (&expected * &gradient).unwrap().sum_all().unwrap();
                let of_weight = loss.backward().unwrap().get(&weight).unwrap().clone();
                let pass = (&images, weight.as_tensor(), &gradient);
                let [found, found_gradient] = trained::<bf16>(cuda, window, pass);
                assert!(distance(&found, &expected) < 2e-2 && distance(&found_gradient, &of_weight) < 2e-2, "{size}");
                let [found, found_gradient] = trained::<f16>(cuda, window, pass);
                assert!(distance(&found, &expected) < 3e-3 && distance(&found_gradient, &of_weight) < 3e-3, "{size}");
            }
        }
    }

    /// What comes out, (N, C', H', W'), and the gradient of weights, (C', C, K, K), both on the CPU.
    fn trained<T: Number>(
        cuda: &CudaDevice,
        window: Window,
        (images, weight, gradient): (&Tensor, &Tensor, &Tensor),
    ) -> [Tensor; 2] {
        let there = |tensor: &Tensor| tensor.to_device(device()).unwrap();
        let (count, channels, height, width) = images.dims4().unwrap();
        let (outputs, rows, columns) = (weight.dim(0).unwrap(), window.output(height), window.output(width));
        let unfolding = Unfolding::of(channels, window, T::DTYPE).unwrap();
        let (x, out) = (unfolding.dims(count, height, width), [count, rows, columns, outputs]);
        let conv = TrainableConv::<T>::new(&handle(cuda).unwrap(), x, out, unfolding.window()).unwrap();
        let maps = unfolding.maps::<T>(&there(images)).unwrap();
        let weights = there(weight);
        let packed = unfolding.pack_weights::<T>(cuda, &Values::of(&weights).unwrap().view().unwrap()).unwrap();
        let y = tensor(conv.forward(cuda, &maps, &packed).unwrap(), &out, cuda);
        let gradient = channels_last(&there(gradient), T::DTYPE).unwrap();
        let gradient = cuda.cuda_stream().clone_dtod(&Values::of(&gradient).unwrap().view::<T>().unwrap()).unwrap();
        let of_weight = conv.weight_gradient(cuda, &maps, &gradient).unwrap();
        let of_weight = tensor(unfolding.unpack_weights(cuda, &of_weight).unwrap(), weight.dims(), cuda);
        let y = y.permute((0, 3, 1, 2)).unwrap();
        [y, of_weight].map(|found| found.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap())
    }
}
