//! The trainable form of a network on NVIDIA GPUs: cuDNN's convolutions and kernels of our own, on maps (N, H, W, C) of f32, bf16 or f16.
//!
//! In halves parameters, their gradients and running statistics are f32 still, and so are all sums: mixed precision as PyTorch's autocast
//! has it. Everything is put on the device's stream one after another; nothing here waits for it. Kernels add in an order that
//! shapes decide, and so does cuDNN where it can.

mod gates;
mod launch;
mod norms;
mod pass;
mod variables;
mod weights;

use std::collections::HashMap;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Device, Result, Tensor, bail};

use self::launch::{Averaging, Launcher, pack};
use self::pass::{Convolutions, Tape};
use self::variables::Variables;
use super::Backward;
use super::graph::{Graph, INPUT, Images};
use crate::architecture::{Architecture, GlobalPool};
use crate::blueprint::{Blueprint, Pool};
use crate::cudnn::{self, Number, Unfolding, Values, tensor};
use crate::kernels::Extent;
use crate::part::Part;
use crate::training::TrainingMode;

/// Sizes of batches whose convolutions stay prepared: those of a training, of its last batch, and of what it is measured on.
const SIZES: usize = 4;

/// A network from one part on, up to its pooled features, that can go back; maps of kind `T`.
#[derive(Debug)]
pub(super) struct OnCuda<T: Number> {
    graph: Graph,
    /// How the first convolution reads images, where it had better not read them as they are.
    unfolding: Option<Unfolding>,
    launcher: Launcher,
    prepared: Vec<Convolutions<T>>,
    tape: Option<Tape<T>>,
}

impl<T: Number> OnCuda<T> {
    /// From the part `first` on; `None` where the features are no means, or nothing lies before the classifier.
    pub(super) fn new(architecture: &Architecture, first: Part, device: &CudaDevice) -> Option<OnCuda<T>> {
        let graph = Graph::of(&Blueprint::of(architecture), first, Images::AsTheyAre)?;
        let whole_packs = graph.channels.iter().skip(INPUT + 1).all(|channels| channels % pack::<T>() == 0);
        let fits = whole_packs && graph.global_pool == GlobalPool::Average;
        fits.then(|| OnCuda {
            unfolding: if first == Part::Stem { pass::unfolding::<T>(&graph) } else { None },
            launcher: Launcher::new(device),
            graph,
            prepared: Vec::new(),
            tape: None,
        })
    }

    /// Convolutions for so many images of that size, those of the last call in the first place.
    fn prepare(&mut self, images: usize, input: Extent) -> Result<()> {
        let fits = |prepared: &Convolutions<T>| prepared.fits(images, input);
        let found = match self.prepared.iter().position(fits) {
            Some(index) => self.prepared.remove(index),
            None => {
                let cudnn = cudnn::handle(&self.launcher.device)?;
                Convolutions::new(&self.graph, &cudnn, (images, input), self.unfolding)?
            }
        };
        self.prepared.truncate(SIZES - 1);
        self.prepared.insert(0, found);
        Ok(())
    }

    /// (N, C, H, W) of any kind → (N, H, W, C), or unfolded.
    fn maps(&self, x: &Tensor) -> Result<CudaSlice<T>> {
        if x.device().location() != Device::Cuda(self.launcher.device.clone()).location() {
            bail!("maps and weights are not on one device");
        }
        if let Some(unfolding) = self.unfolding {
            return unfolding.maps(&x.detach());
        }
        let x = x.detach().permute((0, 2, 3, 1))?.to_dtype(T::DTYPE)?.contiguous()?;
        let values = Values::of(&x)?;
        let values = values.view::<T>()?;
        // SAFETY: all of it is written by the copy.
        let mut copy = unsafe { self.launcher.device.alloc(values.len())? };
        self.launcher.device.memcpy_dtod(&values, &mut copy)?;
        Ok(copy)
    }
}

impl<T: Number> Backward for OnCuda<T> {
    fn features(&mut self, variables: &HashMap<String, Tensor>, x: &Tensor, mode: &mut TrainingMode) -> Result<Tensor> {
        self.tape = None;
        let (images, channels, height, width) = x.dims4()?;
        if images == 0 || channels != self.graph.channels[INPUT] {
            bail!("maps of shape {:?} where (N, {}, H, W) is expected", x.dims(), self.graph.channels[INPUT]);
        }
        let input = Extent { height, width };
        self.prepare(images, input)?;
        let maps = self.maps(x)?;
        let pass = pass::Pass {
            graph: &self.graph,
            launcher: &self.launcher,
            convolutions: &self.prepared[0],
            variables: Variables(variables),
        };
        let tape = pass.forward(maps, mode)?;
        let features = pass.features(&tape)?;
        let channels = self.graph.channels[self.graph.output()];
        self.tape = Some(tape);
        Ok(tensor(features, &[images, channels], &self.launcher.device))
    }

    fn gradients(
        &mut self,
        variables: &HashMap<String, Tensor>,
        features: &Tensor,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(String, Tensor)>> {
        let Some(tape) = self.tape.take() else { bail!("no features were computed to go back from") };
        let pass = pass::Pass {
            graph: &self.graph,
            launcher: &self.launcher,
            convolutions: &self.prepared[0],
            variables: Variables(variables),
        };
        let features = features.contiguous()?;
        pass.backward(tape, &Values::of(&features)?, wanted)
    }
}

/// How a pool averages, if it does.
fn averaging(pool: Pool) -> Option<Averaging> {
    match pool {
        Pool::Average | Pool::AverageToTheEdge => Some(Averaging::Mean { stride: 2, zeros: false }),
        Pool::AverageSameSize => Some(Averaging::Mean { stride: 1, zeros: true }),
        Pool::Blur { stride } => Some(Averaging::Blur { stride }),
        Pool::Max { .. } => None,
    }
}
