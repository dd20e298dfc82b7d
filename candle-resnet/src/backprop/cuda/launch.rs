//! Kernels, started on a device's stream; here those of `maps.cu`. Each function checks that slices are as long as the kernel reads
//! and writes.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig, PushKernelArg,
};
use candle_core::{Result, bail};

use crate::cudnn::Number;
use crate::kernels::Extent;

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/maps.ptx"));

/// Threads of a block; kernels over rows have room for no more.
pub(super) const THREADS: usize = 256;

/// A pointer to nothing.
pub(super) const NOTHING: u64 = 0;

/// Maps (images, pixels, channels).
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) images: usize,
    pub(super) pixels: usize,
    pub(super) channels: usize,
}

impl Rows {
    pub(super) fn count(self) -> usize {
        self.images * self.pixels
    }

    pub(super) fn values(self) -> usize {
        self.count() * self.channels
    }
}

/// Values that a thread takes at a time: 16 bytes.
pub(super) const fn pack<T>() -> usize {
    16 / size_of::<T>()
}

/// Maps on both sides of a pool, or of a shift of channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pooling {
    pub(super) images: usize,
    pub(super) input: Extent,
    pub(super) output: Extent,
    /// What goes in, and comes out of a pool.
    pub(super) channels: usize,
}

impl Pooling {
    fn values(self) -> (usize, usize) {
        let map = |extent: Extent| self.images * extent.pixels() * self.channels;
        (map(self.input), map(self.output))
    }

    /// As the kernels take it.
    fn sizes(self) -> [u32; 6] {
        let Pooling { images, input, output, channels } = self;
        [images, input.height, input.width, channels, output.height, output.width].map(|size| size as u32)
    }
}

#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) device: CudaDevice,
    pub(super) stream: Arc<CudaStream>,
}

impl Launcher {
    pub(super) fn new(device: &CudaDevice) -> Launcher {
        Launcher { device: device.clone(), stream: device.cuda_stream() }
    }

    pub(super) fn add<T: Number>(&self, a: &CudaSlice<T>, b: &CudaSlice<T>) -> Result<CudaSlice<T>> {
        check(&[(b.len(), a.len()), (a.len() % pack::<T>(), 0)])?;
        let mut to = self.uninitialised(a.len())?;
        let function = self.function::<T>("add")?;
        let packs = (a.len() / pack::<T>()) as u32;
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(a).arg(b).arg(&packs).arg(&mut to);
        // SAFETY: the slices are as long as what was checked says.
        unsafe { launch.launch(one_each(packs as usize)) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    /// What comes out of a 3×3 max-pool, and which pixel of its window each value came from.
    pub(super) fn max_pool<T: Number>(
        &self,
        x: &CudaSlice<T>,
        pooling: Pooling,
        stride: usize,
    ) -> Result<(CudaSlice<T>, CudaSlice<u8>)> {
        let (input, output) = pooling.values();
        check(&[(x.len(), input)])?;
        let (mut y, mut winners) = (self.uninitialised(output)?, self.uninitialised(output)?);
        let function = self.function::<T>("max_pool")?;
        let (sizes, stride) = (pooling.sizes(), stride as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(x);
        all(&mut launch, &sizes);
        launch.arg(&stride).arg(&mut y).arg(&mut winners);
        // SAFETY: as in `add`.
        unsafe { launch.launch(one_each(output / pack::<T>())) }.map_err(candle_core::Error::wrap)?;
        drop(launch);
        Ok((y, winners))
    }

    /// The gradient of what comes out, in one part or two → that of what goes in.
    pub(super) fn max_pool_gradient<T: Number>(
        &self,
        (gradient, further): (&CudaSlice<T>, Option<&CudaSlice<T>>),
        winners: &CudaSlice<u8>,
        pooling: Pooling,
        stride: usize,
    ) -> Result<CudaSlice<T>> {
        let (input, output) = pooling.values();
        check(&[(gradient.len(), output), (winners.len(), output)])?;
        check_optional(further, output)?;
        let mut to = self.uninitialised(input)?;
        let function = self.function::<T>("max_pool_gradient")?;
        let (sizes, stride) = (pooling.sizes(), stride as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gradient);
        optional(&mut launch, further);
        launch.arg(winners);
        all(&mut launch, &sizes);
        launch.arg(&stride).arg(&mut to);
        // SAFETY: as in `add`.
        unsafe { launch.launch(one_each(input / pack::<T>())) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    pub(super) fn average<T: Number>(
        &self,
        x: &CudaSlice<T>,
        pooling: Pooling,
        window: Averaging,
    ) -> Result<CudaSlice<T>> {
        let (input, output) = pooling.values();
        check(&[(x.len(), input)])?;
        self.window(window.kernel(), x, pooling, &window.numbers(), (output, pack::<T>()))
    }

    /// The gradient of what comes out → that of what goes in.
    pub(super) fn average_gradient<T: Number>(
        &self,
        gradient: &CudaSlice<T>,
        pooling: Pooling,
        window: Averaging,
    ) -> Result<CudaSlice<T>> {
        let (input, output) = pooling.values();
        check(&[(gradient.len(), output)])?;
        let kernel = format!("{}_gradient", window.kernel());
        self.window(&kernel, gradient, pooling, &window.numbers(), (input, pack::<T>()))
    }

    /// Every pixel that a stride reaches, with channels of zeros around its own.
    pub(super) fn shift_channels<T: Number>(
        &self,
        x: &CudaSlice<T>,
        pooling: Pooling,
        shift: Shift,
    ) -> Result<CudaSlice<T>> {
        check(&[(x.len(), pooling.values().0)])?;
        self.window("shift_channels", x, pooling, &shift.numbers(), (shift.values(pooling), 1))
    }

    /// The gradient of what comes out → that of what goes in.
    pub(super) fn shift_channels_gradient<T: Number>(
        &self,
        gradient: &CudaSlice<T>,
        pooling: Pooling,
        shift: Shift,
    ) -> Result<CudaSlice<T>> {
        check(&[(gradient.len(), shift.values(pooling))])?;
        self.window("shift_channels_gradient", gradient, pooling, &shift.numbers(), (pooling.values().0, 1))
    }

    /// Starts a kernel that makes `values`, so many in each thread, of a map.
    fn window<T: Number>(
        &self,
        name: &str,
        from: &CudaSlice<T>,
        pooling: Pooling,
        numbers: &[u32],
        (values, of_thread): (usize, usize),
    ) -> Result<CudaSlice<T>> {
        let mut to = self.uninitialised(values)?;
        let function = self.function::<T>(name)?;
        let sizes = pooling.sizes();
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(from);
        all(&mut launch, &sizes);
        all(&mut launch, numbers);
        launch.arg(&mut to);
        // SAFETY: as in `add`.
        unsafe { launch.launch(one_each(values / of_thread)) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    /// (images, channels).
    pub(super) fn global_mean<T: Number>(&self, x: &CudaSlice<T>, rows: Rows) -> Result<CudaSlice<f32>> {
        check(&[(x.len(), rows.values())])?;
        let mut features = self.uninitialised(rows.images * rows.channels)?;
        let function = self.function::<T>("global_mean")?;
        let [images, pixels, channels] = [rows.images, rows.pixels, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(x).arg(&images).arg(&pixels).arg(&channels).arg(&mut features);
        // SAFETY: as in `add`.
        unsafe { launch.launch(one_each(rows.images * rows.channels / pack::<T>())) }
            .map_err(candle_core::Error::wrap)?;
        Ok(features)
    }

    pub(super) fn global_mean_gradient<T: Number>(
        &self,
        features: &CudaView<'_, f32>,
        rows: Rows,
    ) -> Result<CudaSlice<T>> {
        check(&[(features.len(), rows.images * rows.channels)])?;
        let mut to = self.uninitialised(rows.values())?;
        let function = self.function::<T>("global_mean_gradient")?;
        let [images, pixels, channels] = [rows.images, rows.pixels, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(features).arg(&images).arg(&pixels).arg(&channels).arg(&mut to);
        // SAFETY: as in `add`.
        unsafe { launch.launch(one_each(rows.values() / pack::<T>())) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    fn function<T: Number>(&self, name: &str) -> Result<CudaFunction> {
        let name = format!("{name}_{}", T::DTYPE.as_str());
        Ok(self.device.get_or_load_custom_func(&name, "candle_resnet_maps", KERNELS)?.into_cuda_function())
    }

    /// Memory that a kernel writes all of.
    pub(super) fn uninitialised<T: DeviceRepr>(&self, values: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every caller hands it to a kernel that writes each value, before anything on the stream reads it.
        unsafe { self.device.alloc(values) }
    }
}

/// What a pool takes of a window.
#[derive(Debug, Clone, Copy)]
pub(super) enum Averaging {
    /// The mean of 2×2 pixels; `zeros` says whether those beyond the last row and column count.
    Mean { stride: usize, zeros: bool },
    /// 3×3 pixels, those in the middle more; mirrored at the edges.
    Blur { stride: usize },
}

impl Averaging {
    fn kernel(self) -> &'static str {
        match self {
            Averaging::Mean { .. } => "mean_pool",
            Averaging::Blur { .. } => "blur_pool",
        }
    }

    fn numbers(self) -> Vec<u32> {
        match self {
            Averaging::Mean { stride, zeros } => vec![stride as u32, u32::from(zeros)],
            Averaging::Blur { stride } => vec![stride as u32],
        }
    }
}

/// How channels move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    pub(super) stride: usize,
    /// Channels of zeros on both sides.
    pub(super) padding: usize,
}

impl Shift {
    fn numbers(self) -> [u32; 2] {
        [self.stride, self.padding].map(|number| number as u32)
    }

    /// Of what comes out.
    fn values(self, pooling: Pooling) -> usize {
        pooling.images * pooling.output.pixels() * (pooling.channels + 2 * self.padding)
    }
}

pub(super) fn optional<'a, T>(launch: &mut LaunchArgs<'a>, slice: Option<&'a CudaSlice<T>>) {
    match slice {
        Some(slice) => launch.arg(slice),
        None => launch.arg(&NOTHING),
    };
}

fn all<'a>(launch: &mut LaunchArgs<'a>, numbers: &'a [u32]) {
    for number in numbers {
        launch.arg(number);
    }
}

/// A thread for each of `count`.
pub(super) fn one_each(count: usize) -> LaunchConfig {
    let grid_dim = (count.div_ceil(THREADS).max(1) as u32, 1, 1);
    LaunchConfig { grid_dim, block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 }
}

pub(super) fn check(lengths: &[(usize, usize)]) -> Result<()> {
    match lengths.iter().find(|(length, wanted)| length != wanted) {
        Some((length, wanted)) => bail!("a kernel was given {length} values where it takes {wanted}"),
        None => Ok(()),
    }
}

pub(super) fn check_optional<T>(slice: Option<&CudaSlice<T>>, wanted: usize) -> Result<()> {
    slice.map_or(Ok(()), |slice| check(&[(slice.len(), wanted)]))
}
