//! The convolution of the frozen form, with bias, residual and ReLU.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cudnn::{
    ActivationDescriptor, ConvBiasActivationForward, ConvDescriptor, Cudnn, CudnnError, FilterDescriptor,
    TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{Device, Result, Tensor, bail};

use super::convolution::{PlainConv, scratch};
use super::number::with_number;
use super::{Number, PROPAGATE, Unfolding, Values, Window, channels_last, map, tensor, with_library};

/// A convolution with everything that is folded into it.
#[derive(Debug, Clone)]
pub(crate) struct FusedConv {
    weight: Tensor, // (C', K, K, C / groups)
    bias: Tensor,   // (C')
    window: Window,
    /// Where images come in that had better be unfolded.
    unfolding: Option<Unfolding>,
}

impl FusedConv {
    /// `weight` (C', C / groups, K, K) and `bias` (C') on a CUDA device, in what it computes in.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, window: Window) -> Result<FusedConv> {
        let (device, dtype) = (weight.device(), weight.dtype());
        let unfolding = Unfolding::of(weight.dim(1)? * window.groups, window, dtype);
        let (weight, window) = match unfolding {
            Some(unfolding) => (unfolding.weights(weight)?.to_device(device)?, unfolding.window()),
            None => (weight.clone(), window),
        };
        let weight = weight.to_dtype(dtype)?.permute((0, 2, 3, 1))?.contiguous()?;
        let bias = bias.flatten_all()?.to_dtype(dtype)?.contiguous()?;
        Ok(FusedConv { weight, bias, window, unfolding })
    }

    /// Maps (N, C, H, W) → (N, C', H', W'), with `residual` added, and cut off at 0 if `relu`.
    pub(crate) fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let dtype = self.weight.dtype();
        let x = match self.unfolding {
            Some(unfolding) => unfolding.images(x)?,
            None => channels_last(x, dtype)?,
        };
        let residual = residual.map(|residual| channels_last(residual, dtype)).transpose()?;
        let y = with_number!(dtype, T => self.run::<T>(&x, residual.as_ref(), relu))?;
        y.permute((0, 3, 1, 2))
    }

    /// The same, of maps (N, H, W, C).
    fn run<T: Number>(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let FusedConv { weight, bias, window, .. } = self;
        let (images, height, width, channels) = x.dims4()?;
        let out = [images, window.output(height), window.output(width), weight.dim(0)?];
        if let Some(residual) = residual.filter(|residual| residual.dims() != out) {
            bail!("to maps {out:?} of a convolution {:?} cannot be added", residual.dims());
        }
        if channels != weight.dim(3)? * window.groups {
            bail!("a convolution of {} channels was given maps {:?}", weight.dim(3)? * window.groups, x.dims());
        }
        let Device::Cuda(device) = x.device() else { bail!("cuDNN computes on CUDA devices alone") };
        if weight.device().location() != x.device().location() {
            bail!("weights and maps are not on one device");
        }
        let key = ConvKey { x: [images, height, width, channels], out, window: *window, relu };
        let (maps, weights, biases) = (Values::of(x)?, Values::of(weight)?, Values::of(bias)?);
        let added = residual.map(Values::of).transpose()?;
        let operands = Operands {
            x: maps.view::<T>()?,
            weight: weights.view()?,
            bias: biases.view()?,
            residual: added.as_ref().map(Values::view).transpose()?,
        };
        if let Some(y) = with_prepared(device, |prepared, cudnn| prepared.fused(cudnn, device, key, &operands))? {
            return Ok(tensor(y, &out, device));
        }
        let y = with_prepared(device, |prepared, cudnn| prepared.plain(cudnn, device, key, &operands))?;
        let y = tensor(y, &out, device).broadcast_add(bias)?;
        let y = if let Some(residual) = residual { (y + residual)? } else { y };
        if relu { y.relu() } else { Ok(y) }
    }
}

/// What a convolution reads.
struct Operands<'a, T> {
    x: CudaView<'a, T>,
    weight: CudaView<'a, T>,
    bias: CudaView<'a, T>,
    residual: Option<CudaView<'a, T>>,
}

/// What the descriptors of a convolution say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ConvKey {
    /// (N, H, W, C)
    x: [usize; 4],
    /// (N, H', W', C')
    out: [usize; 4],
    window: Window,
    relu: bool,
}

/// Shapes that stay prepared: those of some twenty networks, or of one for as many sizes of batches. One more, and all are forgotten.
const SHAPES: usize = 512;

/// Convolutions of maps of `T`, as far as they have been met.
pub(crate) struct Prepared<T: Number> {
    /// All in one; nothing where cuDNN does not have that for a shape.
    fused: HashMap<ConvKey, Option<FusedForward<T>>>,
    /// Alone, for those.
    plain: HashMap<ConvKey, PlainConv<T>>,
}

impl<T: Number> Default for Prepared<T> {
    fn default() -> Prepared<T> {
        Prepared { fused: HashMap::new(), plain: HashMap::new() }
    }
}

/// Calls what is prepared on `device`, with this thread's cuDNN.
fn with_prepared<T: Number, R>(
    device: &CudaDevice,
    call: impl FnOnce(&mut Prepared<T>, &Arc<Cudnn>) -> Result<R>,
) -> Result<R> {
    with_library(device, |library| {
        let cudnn = library.cudnn.clone();
        call(T::prepared(library), &cudnn)
    })
}

impl<T: Number> Prepared<T> {
    /// Forgets everything where there is no room for one more.
    fn make_room(&mut self, key: &ConvKey) {
        if self.fused.len() >= SHAPES && !self.fused.contains_key(key) {
            self.fused.clear();
            self.plain.clear();
        }
    }

    /// Convolution, bias, residual and ReLU; `None` where cuDNN does not have that for these shapes.
    fn fused(
        &mut self,
        cudnn: &Arc<Cudnn>,
        device: &CudaDevice,
        key: ConvKey,
        operands: &Operands<T>,
    ) -> Result<Option<CudaSlice<T>>> {
        self.make_room(&key);
        let place = match self.fused.entry(key) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => place.insert(if_there_is(FusedForward::new(cudnn, &key), &key)?),
        };
        let Some(forward) = place else { return Ok(None) };
        let values = key.out.iter().product();
        // SAFETY: cuDNN writes all of `y`, and scratch before it reads it.
        let (mut y, mut workspace) = unsafe { (device.alloc(values)?, scratch(device, forward.workspace)?) };
        // Where there is no residual, what stands for it is taken times 0 and not read.
        // SAFETY: nobody reads it.
        let nothing = unsafe { device.alloc(if operands.residual.is_some() { 1 } else { values })? };
        let (z, counts) = match &operands.residual {
            Some(residual) => (residual, T::ONE),
            None => (&nothing.slice(..), T::ZERO),
        };
        let Operands { x, weight, bias, .. } = operands;
        let (algorithm, scales) = (forward.algorithm, (T::ONE, counts));
        // SAFETY: the descriptors say what lies in the slices, whose lengths follow from shapes that were checked.
        let launched =
            unsafe { forward.call().launch(algorithm, Some(&mut workspace), scales, x, weight, z, bias, &mut y) };
        let launched = if_there_is(launched, &key)?;
        if launched.is_none() {
            *place = None;
        }
        Ok(launched.map(|()| y))
    }

    /// The convolution alone.
    fn plain(
        &mut self,
        cudnn: &Arc<Cudnn>,
        device: &CudaDevice,
        key: ConvKey,
        operands: &Operands<T>,
    ) -> Result<CudaSlice<T>> {
        let conv = match self.plain.entry(key) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => {
                let conv = PlainConv::new(cudnn, key.x, key.out, key.window).map_err(candle_core::Error::wrap)?;
                place.insert(conv)
            }
        };
        conv.forward(device, &operands.x, &operands.weight)
    }
}

/// What cuDNN has; `None` where it says that it does not have it.
fn if_there_is<R>(result: std::result::Result<R, CudnnError>, key: &ConvKey) -> Result<Option<R>> {
    match result {
        Ok(result) => Ok(Some(result)),
        // It says why in many ways, which begin alike.
        Err(CudnnError(status)) if format!("{status:?}").starts_with("CUDNN_STATUS_NOT_SUPPORTED") => {
            tracing::debug!("cuDNN computes {key:?} in several passes: {status:?}");
            Ok(None)
        }
        Err(error) => Err(candle_core::Error::wrap(error)),
    }
}

struct FusedForward<T> {
    conv: ConvDescriptor<f32>,
    activation: ActivationDescriptor<f32>,
    x: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    bias: TensorDescriptor<T>,
    y: TensorDescriptor<T>,
    algorithm: sys::cudnnConvolutionFwdAlgo_t,
    /// Bytes of scratch.
    workspace: usize,
}

impl<T: Number> FusedForward<T> {
    fn new(cudnn: &Arc<Cudnn>, key: &ConvKey) -> std::result::Result<FusedForward<T>, CudnnError> {
        let &ConvKey { x, out, window, relu } = key;
        let activation = match relu {
            true => sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU,
            false => sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY,
        };
        let filter = [out[3], x[3] / window.groups, window.size, window.size].map(|value| value as i32);
        let mut prepared = FusedForward {
            conv: window.descriptor::<T>(cudnn)?,
            activation: cudnn.create_activation(activation, PROPAGATE, 0.0)?,
            x: map(cudnn, x)?,
            weight: cudnn.create_4d_filter(sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, filter)?,
            bias: map(cudnn, [1, 1, 1, out[3]])?,
            y: map(cudnn, out)?,
            // The only one that takes any activation, and of halves the one that runs on tensor cores.
            algorithm: sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
            workspace: 0,
        };
        prepared.workspace = prepared.call().get_workspace_size(prepared.algorithm)?;
        Ok(prepared)
    }

    fn call(&self) -> ConvBiasActivationForward<'_, T, f32, f32, T> {
        let FusedForward { conv, activation, x, weight, bias, y, .. } = self;
        ConvBiasActivationForward { conv, act: activation, x, w: weight, z: y, bias, y }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::DType;

    use super::*;
    use crate::device::device;

    const WINDOW: Window = Window { size: 3, stride: 1, padding: 1, dilation: 1, groups: 1 };

    fn key(images: usize) -> ConvKey {
        ConvKey { x: [images, 8, 8, 16], out: [images, 8, 8, 16], window: WINDOW, relu: true }
    }

    #[test]
    fn shapes_that_stay_prepared_are_bounded() {
        let mut prepared = Prepared::<f32>::default();
        for images in 0..SHAPES {
            prepared.make_room(&key(images));
            prepared.fused.insert(key(images), None);
        }
        prepared.make_room(&key(0));
        assert_eq!(prepared.fused.len(), SHAPES);
        prepared.make_room(&key(SHAPES));
        assert!(prepared.fused.is_empty());
    }

    /// Where cuDNN has nothing that does all in one, what it does is the same.
    #[test]
    fn several_passes_give_what_one_gives() {
        let Device::Cuda(cuda) = device() else { return };
        for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::BF16, 2e-2), (DType::F16, 3e-3)] {
            for (window, channels) in [
                (WINDOW, 32),
                (Window { stride: 2, ..WINDOW }, 32),
                (Window { groups: 8, ..WINDOW }, 32),
                (Window { dilation: 2, padding: 2, ..WINDOW }, 32),
                (Window { size: 1, padding: 0, ..WINDOW }, 64),
                (Window { size: 7, stride: 2, padding: 3, ..WINDOW }, 3),
            ] {
                for (has_residual, relu) in [(true, true), (false, true), (false, false)] {
                    let case = Case::new(window, channels, has_residual, relu);
                    let expected = case.expected();
                    for all_in_one in [true, false] {
                        let found = distance(&case.computed(dtype), &expected);
                        assert!(found < tolerance, "{dtype:?} {window:?} {has_residual} {relu} {all_in_one}: {found}");
                        with_number!(dtype, T => with_prepared::<T, ()>(cuda, |prepared, _| {
                            prepared.forget(all_in_one);
                            Ok(())
                        }))
                        .unwrap();
                    }
                }
            }
        }
    }

    impl<T: Number> Prepared<T> {
        /// What was met; then as if cuDNN had nothing `all_in_one` for it, or as if nothing was met.
        fn forget(&mut self, all_in_one: bool) {
            match all_in_one {
                true => self.fused.values_mut().for_each(|forward| *forward = None),
                false => self.fused.clear(),
            }
        }
    }

    /// Maps and a convolution on the CPU.
    struct Case {
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Option<Tensor>,
        window: Window,
        relu: bool,
    }

    impl Case {
        fn new(window: Window, channels: usize, has_residual: bool, relu: bool) -> Case {
            let normal = |deviation: f32, shape: &[usize]| Tensor::randn(0f32, deviation, shape, &Device::Cpu).unwrap();
            let (out, inputs) = (32, channels / window.groups);
            let deviation = 1.0 / ((inputs * window.size * window.size) as f32).sqrt();
            let side = window.output(15);
            Case {
                x: normal(1.0, &[3, channels, 15, 15]),
                weight: normal(deviation, &[out, inputs, window.size, window.size]),
                bias: normal(1.0, &[out]),
                residual: has_residual.then(|| normal(1.0, &[3, out, side, side])),
                window,
                relu,
            }
        }

        fn expected(&self) -> Tensor {
            let Window { stride, padding, dilation, groups, .. } = self.window;
            let y = self.x.conv2d(&self.weight, padding, stride, dilation, groups).unwrap();
            let y = y.broadcast_add(&self.bias.reshape((1, (), 1, 1)).unwrap()).unwrap();
            let y = self.residual.iter().fold(y, |y, residual| (y + residual).unwrap());
            if self.relu { y.relu().unwrap() } else { y }
        }

        /// On the device, in numbers of a kind.
        fn computed(&self, dtype: DType) -> Tensor {
            let there = |tensor: &Tensor| tensor.to_device(device()).unwrap().to_dtype(dtype).unwrap();
            let conv = FusedConv::new(&there(&self.weight), &there(&self.bias), self.window).unwrap();
            let y = conv.forward(&there(&self.x), self.residual.as_ref().map(there).as_ref(), self.relu).unwrap();
            y.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap()
        }
    }

    /// The largest, relative to the largest value.
    pub(in crate::cudnn) fn distance(found: &Tensor, expected: &Tensor) -> f32 {
        let largest = |tensor: Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(found.dims(), expected.dims());
        largest((found - expected).unwrap()) / largest(expected.clone())
    }
}
