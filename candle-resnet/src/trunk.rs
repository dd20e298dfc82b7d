//! The frozen form of a network, from pixels to pooled features: batch norms folded, no variable, no graph.
//!
//! Compiled once from the same weights as the trainable [`Network`](crate::network::Network). Group norms depend on the image and
//! stay. Holds no classifier.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, Var};
use candle_nn::{GroupNorm, Module, VarMap};

use crate::architecture::{Architecture, Norm};
#[cfg(feature = "cudnn")]
use crate::blueprint::Pool;
use crate::blueprint::{Blueprint, ConvNorm, NORM_EPSILON};
#[cfg(feature = "cudnn")]
use crate::cudnn::{self, FusedConv, Window};
use crate::features::{Boundary, FeatureExtractor};
#[cfg(feature = "cudnn")]
use crate::figure::add_relu;
use crate::figure::{ConvNormLayer, Figure, Parameters};
use crate::kernels::Extent;
use crate::part::Part;
use crate::plan::{self, Compiled, End, Images, PlanOptions, Precision, Source, Start, StepTime};
use crate::training::Statistics;
use crate::weights;

/// A frozen network on one device; cheap to clone, safe to share between threads.
#[derive(Debug, Clone)]
pub struct Trunk {
    form: Form,
    feature_width: usize,
    in_channels: usize,
    device: Device,
}

#[derive(Debug, Clone)]
enum Form {
    /// This crate's kernels.
    Plan(Arc<dyn Compiled>),
    /// candle's operations, and cuDNN's, on numbers of this kind.
    Figure(Figure<FrozenConvNorm>, DType),
}

impl Trunk {
    /// Folds every batch norm of `weights` into its convolution, in f64, and moves the result to `device`.
    ///
    /// `weights` holds the trunk under torchvision's names; `fc` and whatever else it holds is not read. What comes out
    /// is detached: nothing that uses it is tracked.
    ///
    /// # Errors
    /// If a tensor is missing or shapes do not fit.
    pub fn compile(architecture: &Architecture, weights: &VarMap, device: &Device) -> Result<Trunk> {
        Trunk::compile_with(architecture, weights, device, &PlanOptions::default())
    }

    /// As [`compile`](Trunk::compile); `options` say what a plan for the CPU is for, and what it computes in.
    ///
    /// # Errors
    /// As [`compile`](Trunk::compile), and those of [`Precision::check`].
    pub fn compile_with(
        architecture: &Architecture,
        weights: &VarMap,
        device: &Device,
        options: &PlanOptions,
    ) -> Result<Trunk> {
        options.precision.check(device)?;
        let blueprint = Blueprint::of(architecture);
        let variables = weights::lock(weights)?;
        let dtype = match options.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        };
        let weights = FrozenWeights { variables: &variables, device, dtype };
        let form = match device {
            Device::Cpu => Form::Plan(plan::compile(&blueprint, &weights, options)?),
            _ => Form::Figure(Figure::build(&blueprint, &weights)?, dtype),
        };
        let (feature_width, in_channels) = (blueprint.feature_width, architecture.in_channels);
        Ok(Trunk { form, feature_width, in_channels, device: device.clone() })
    }

    /// (N, C, H, W) f32 → (N, C', H', W') f32, untracked: the map at a boundary. What lies behind it is not computed.
    ///
    /// # Errors
    /// If the network has no such boundary, or shapes or devices do not fit.
    pub fn map_at(&self, images: &Tensor, boundary: Boundary) -> Result<Tensor> {
        match &self.form {
            Form::Figure(figure, dtype) => {
                let map = figure.map_at(&images.detach().to_dtype(*dtype)?, Part::Stem, boundary, &mut ())?;
                map.to_dtype(DType::F32)?.contiguous()
            }
            Form::Plan(plan) => run(&**plan, images, Start::Images, End::Map(boundary)),
        }
    }

    /// (N, C, H, W) f32, maps that [`map_at`](Trunk::map_at) gave at a boundary → (N, D) f32, untracked: what
    /// [`features`](FeatureExtractor::features) are of the images, on a CPU to the bit. What lies before it is not computed.
    ///
    /// # Errors
    /// As `map_at`.
    pub fn features_of_maps(&self, maps: &Tensor, boundary: Boundary) -> Result<Tensor> {
        match &self.form {
            Form::Figure(figure, dtype) => {
                let behind = Part::Stage(boundary.stages + 1);
                figure.features(&maps.detach().to_dtype(*dtype)?, behind, &mut ())?.to_dtype(DType::F32)
            }
            Form::Plan(plan) => run(&**plan, maps, Start::Map(boundary), End::Features),
        }
    }

    /// The time of each step on one thread, for `images` (N, C, H, W); `None` where candle's operations run.
    ///
    /// # Errors
    /// If the network does not take such images.
    pub fn profile(&self, images: &Tensor) -> Result<Option<Vec<StepTime>>> {
        match &self.form {
            Form::Figure(..) => Ok(None),
            Form::Plan(plan) => on_slice(images, |images| plan.profile(images)).map(Some),
        }
    }
}

impl FeatureExtractor for Trunk {
    fn feature_width(&self) -> usize {
        self.feature_width
    }

    fn in_channels(&self) -> usize {
        self.in_channels
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn features(&self, images: &Tensor) -> Result<Tensor> {
        match &self.form {
            Form::Figure(figure, dtype) => {
                figure.features(&images.detach().to_dtype(*dtype)?, Part::Stem, &mut ())?.to_dtype(DType::F32)
            }
            Form::Plan(plan) => run(&**plan, images, Start::Images, End::Features),
        }
    }
}

/// (N, C, H, W) → what the plan holds at its end, untracked.
fn run(plan: &dyn Compiled, images: &Tensor, start: Start, end: End) -> Result<Tensor> {
    on_slice(images, |images| {
        let (values, shape) = plan.run(images, start, end)?;
        Tensor::from_vec(values, shape, &Device::Cpu)
    })
}

/// Hands out the values of a tensor (N, C, H, W) on the CPU.
fn on_slice<T>(images: &Tensor, work: impl FnOnce(&Images) -> Result<T>) -> Result<T> {
    let (count, channels, height, width) = images.dims4()?;
    let images = images.detach().to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = images.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        candle_core::bail!("the trunk is on the CPU, the images are on {:?}", images.device().location());
    };
    let values = &values[layout.start_offset()..];
    work(&Images { values, count, channels, extent: Extent { height, width } })
}

impl Source for FrozenWeights<'_> {
    fn values(&self, name: &str) -> Result<Vec<f32>> {
        self.variable(name)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
    }
}

/// Detached copies of weights on a device.
struct FrozenWeights<'a> {
    variables: &'a HashMap<String, Var>,
    device: &'a Device,
    /// What the layers compute in.
    dtype: DType,
}

impl Parameters for FrozenWeights<'_> {
    type Layer = FrozenConvNorm;

    fn conv_norm(&self, unit: &ConvNorm) -> Result<FrozenConvNorm> {
        let (weight, norm) = match unit.norm_kind {
            Norm::Batch => self.fold(unit)?,
            Norm::Group { groups } => (self.single(&unit.conv, "weight")?, self.group_norm(unit, groups)?),
        };
        let &ConvNorm { stride, dilation, groups, .. } = unit;
        let padding = unit.padding();
        #[cfg(feature = "cudnn")]
        if self.device.is_cuda() {
            let window = Window { size: unit.kernel, stride, padding, dilation, groups };
            return FrozenConvNorm::fused(&weight, norm, window);
        }
        Ok(FrozenConvNorm::Apart { weight, norm, stride, padding, dilation, groups })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.place(&self.double(name)?)?.reshape(shape)
    }
}

impl FrozenWeights<'_> {
    /// The convolution's weight times the norm's scale, and what remains of the norm.
    fn fold(&self, unit: &ConvNorm) -> Result<(Tensor, FrozenNorm)> {
        let of_norm = |suffix: &str| self.double(&format!("{}.{suffix}", unit.norm));
        let spread = (of_norm("running_var")? + NORM_EPSILON)?.sqrt()?;
        let scale = (of_norm("weight")? / spread)?; // (C')
        let bias = (of_norm("bias")? - (of_norm("running_mean")? * &scale)?)?;
        let weight = self.double(&format!("{}.weight", unit.conv))?.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
        Ok((self.place(&weight)?, FrozenNorm::Bias(self.place(&bias)?.reshape((1, (), 1, 1))?)))
    }

    fn group_norm(&self, unit: &ConvNorm, groups: usize) -> Result<FrozenNorm> {
        let (scale, shift) = (self.single(&unit.norm, "weight")?, self.single(&unit.norm, "bias")?);
        Ok(FrozenNorm::Group(GroupNorm::new(scale, shift, unit.out_channels, groups, NORM_EPSILON)?))
    }

    fn single(&self, layer: &str, suffix: &str) -> Result<Tensor> {
        self.place(&self.double(&format!("{layer}.{suffix}"))?)
    }

    fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.to_dtype(DType::F32)?.to_dtype(self.dtype)?.to_device(self.device)
    }

    /// A detached copy of the variable `name` on the CPU, where every dtype is at hand.
    fn double(&self, name: &str) -> Result<Tensor> {
        self.variable(name)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)
    }

    /// The variable `name`, detached.
    fn variable(&self, name: &str) -> Result<Tensor> {
        let variable = self.variables.get(name);
        let variable =
            variable.ok_or_else(|| candle_core::Error::msg(format!("the weights hold no tensor `{name}`")))?;
        Ok(variable.as_detached_tensor())
    }
}

/// A convolution and what of its norm was not folded into its weight.
#[derive(Debug, Clone)]
enum FrozenConvNorm {
    /// One operation after the other.
    Apart {
        weight: Tensor, // (C', C / groups, K, K)
        norm: FrozenNorm,
        stride: usize,
        padding: usize,
        dilation: usize,
        groups: usize,
    },
    /// All in one, with what follows.
    #[cfg(feature = "cudnn")]
    Fused(FusedConv),
    /// Before a norm that depends on the image.
    #[cfg(feature = "cudnn")]
    BeforeGroups(FusedConv, GroupNorm),
}

#[cfg(feature = "cudnn")]
impl FrozenConvNorm {
    fn fused(weight: &Tensor, norm: FrozenNorm, window: Window) -> Result<FrozenConvNorm> {
        Ok(match norm {
            FrozenNorm::Bias(bias) => FrozenConvNorm::Fused(FusedConv::new(weight, &bias, window)?),
            FrozenNorm::Group(norm) => {
                let no_bias = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
                FrozenConvNorm::BeforeGroups(FusedConv::new(weight, &no_bias, window)?, norm)
            }
        })
    }
}

#[derive(Debug, Clone)]
enum FrozenNorm {
    /// A batch norm's shift, (1, C', 1, 1).
    Bias(Tensor),
    Group(GroupNorm),
}

impl ConvNormLayer for FrozenConvNorm {
    fn forward(&self, x: &Tensor, _: Statistics) -> Result<Tensor> {
        match self {
            FrozenConvNorm::Apart { weight, norm, stride, padding, dilation, groups } => {
                let x = x.conv2d(weight, *padding, *stride, *dilation, *groups)?;
                match norm {
                    FrozenNorm::Bias(bias) => x.broadcast_add(bias),
                    FrozenNorm::Group(norm) => norm.forward(&x),
                }
            }
            #[cfg(feature = "cudnn")]
            FrozenConvNorm::Fused(conv) => conv.forward(x, None, false),
            #[cfg(feature = "cudnn")]
            FrozenConvNorm::BeforeGroups(conv, norm) => norm.forward(&conv.forward(x, None, false)?),
        }
    }

    #[cfg(feature = "cudnn")]
    fn forward_relu(&self, x: &Tensor, shortcut: Option<&Tensor>, statistics: Statistics) -> Result<Tensor> {
        if let FrozenConvNorm::Fused(conv) = self {
            return conv.forward(x, shortcut, true);
        }
        add_relu(self.forward(x, statistics)?, shortcut)
    }

    #[cfg(feature = "cudnn")]
    fn pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
        match pool {
            Pool::Max { stride } if x.device().is_cuda() => cudnn::max_pool(x, stride),
            pool => crate::figure::pool(x, pool),
        }
    }
}
