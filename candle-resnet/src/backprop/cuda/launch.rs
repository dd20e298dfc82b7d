//! The kernels of `kernels.cu`, started on a device's stream. Each function checks that slices are as long as the kernel reads and
//! writes.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig, PushKernelArg,
};
use candle_core::{Result, bail};

use crate::cudnn::Number;
use crate::kernels::Extent;

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// Threads of a block; kernels over rows have room for no more.
const THREADS: usize = 256;

/// Blocks of kernels that only write, and of kernels whose sums others add up: enough to keep the largest chips busy.
const BLOCKS: usize = 2048;
const SUMMING_BLOCKS: usize = 512;

/// A pointer to nothing.
const NOTHING: u64 = 0;

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

    fn values(self) -> usize {
        self.count() * self.channels
    }

    /// Blocks of threads side by side over channels, and over rows.
    fn config<T>(self, most_blocks: usize) -> LaunchConfig {
        let vectors = self.channels / pack::<T>();
        let side_by_side = vectors.next_power_of_two().min(32);
        let (across, rows) = (vectors.div_ceil(side_by_side), THREADS / side_by_side);
        let down = self.count().div_ceil(rows).min((most_blocks / across).max(1));
        let block_dim = (side_by_side as u32, rows as u32, 1);
        LaunchConfig { grid_dim: (across as u32, down as u32, 1), block_dim, shared_mem_bytes: 0 }
    }
}

/// Values that a thread takes at a time: 16 bytes.
pub(super) const fn pack<T>() -> usize {
    16 / size_of::<T>()
}

/// Sums over some of the rows each; (parts, 2, channels).
#[derive(Debug)]
pub(super) struct PartialSums {
    sums: CudaSlice<f32>,
    parts: usize,
}

/// What a norm normalises by, and with; (4, channels): mean, 1 / √(variance + ε), scale, shift.
#[derive(Debug)]
pub(super) struct Statistics(CudaSlice<f32>);

/// Parameters and running statistics of a norm, each (channels).
pub(super) struct NormVariables<'a> {
    pub(super) weight: CudaView<'a, f32>,
    pub(super) bias: CudaView<'a, f32>,
    pub(super) running_mean: CudaView<'a, f32>,
    pub(super) running_variance: CudaView<'a, f32>,
}

/// The gradient of what comes out of a norm, and what lets it pass.
pub(super) struct Incoming<'a, T> {
    pub(super) gradient: &'a CudaSlice<T>,
    /// Added to it.
    pub(super) further: Option<&'a CudaSlice<T>>,
    /// What came out, where a ReLU did after a residual.
    pub(super) output: Option<&'a CudaSlice<T>>,
    /// Whether a ReLU came out, without a residual.
    pub(super) relu: bool,
    /// What each image's branch counts.
    pub(super) factors: Option<&'a CudaSlice<f32>>,
}

/// What [`Launcher::norm_gradient_totals`] gives.
pub(super) struct NormTotals {
    pub(super) of_weight: CudaSlice<f32>,
    pub(super) of_bias: CudaSlice<f32>,
    coefficients: CudaSlice<f32>,
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
    stream: Arc<CudaStream>,
}

impl Launcher {
    pub(super) fn new(device: &CudaDevice) -> Launcher {
        Launcher { device: device.clone(), stream: device.cuda_stream() }
    }

    /// Sums for the statistics of a batch.
    pub(super) fn norm_moments<T: Number>(&self, x: &CudaSlice<T>, rows: Rows) -> Result<PartialSums> {
        check(&[(x.len(), rows.values())])?;
        let config = rows.config::<T>(SUMMING_BLOCKS);
        let parts = config.grid_dim.1 as usize;
        let mut sums = self.uninitialised(parts * 2 * rows.channels)?;
        let function = self.function::<T>("norm_moments")?;
        let (count, channels) = (rows.count() as u32, rows.channels as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(x).arg(&count).arg(&channels).arg(&mut sums);
        // SAFETY: the slices are as long as rows and channels say.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        Ok(PartialSums { sums, parts })
    }

    /// Statistics of a batch; running ones move by `momentum` towards them.
    pub(super) fn norm_batch_statistics<T: Number>(
        &self,
        partial: &PartialSums,
        x: &CudaSlice<T>,
        rows: Rows,
        variables: &NormVariables<'_>,
        (epsilon, momentum): (f64, f64),
    ) -> Result<Statistics> {
        check_norm(variables, rows.channels)?;
        check(&[(x.len(), rows.values()), (partial.sums.len(), partial.parts * 2 * rows.channels)])?;
        let mut statistics = self.uninitialised(4 * rows.channels)?;
        let function = self.function::<T>("norm_batch_statistics")?;
        let (parts, count, channels) = (partial.parts as u32, rows.count() as u32, rows.channels as u32);
        let (epsilon, momentum) = (epsilon as f32, momentum as f32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(x).arg(&count).arg(&channels);
        launch.arg(&variables.weight).arg(&variables.bias).arg(&epsilon).arg(&momentum);
        launch.arg(&variables.running_mean).arg(&variables.running_variance).arg(&mut statistics);
        // SAFETY: as above. Running statistics are written in place, as by an in-place operation of candle's: whatever reads them waits
        // on the same stream.
        unsafe { launch.launch(per_channel(rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(Statistics(statistics))
    }

    pub(super) fn norm_running_statistics(
        &self,
        variables: &NormVariables<'_>,
        channels: usize,
        epsilon: f64,
    ) -> Result<Statistics> {
        check_norm(variables, channels)?;
        let mut statistics = self.uninitialised(4 * channels)?;
        let function = self.plain("norm_running_statistics")?;
        let (count, epsilon) = (channels as u32, epsilon as f32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&variables.running_mean).arg(&variables.running_variance).arg(&variables.weight);
        launch.arg(&variables.bias).arg(&epsilon).arg(&count).arg(&mut statistics);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(Statistics(statistics))
    }

    /// Normalises, adds a residual, and cuts off at 0 if `relu`.
    pub(super) fn norm_apply<T: Number>(
        &self,
        x: &CudaSlice<T>,
        (residual, factors): (Option<&CudaSlice<T>>, Option<&CudaSlice<f32>>),
        statistics: &Statistics,
        rows: Rows,
        relu: bool,
    ) -> Result<CudaSlice<T>> {
        check(&[(x.len(), rows.values()), (statistics.0.len(), 4 * rows.channels)])?;
        check_optional(residual, rows.values())?;
        check_optional(factors, rows.images)?;
        let mut y = self.uninitialised(rows.values())?;
        let function = self.function::<T>("norm_apply")?;
        let [count, pixels, channels] = [rows.count(), rows.pixels, rows.channels].map(|size| size as u32);
        let relu = u32::from(relu);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(x);
        optional(&mut launch, residual);
        launch.arg(&statistics.0);
        optional(&mut launch, factors);
        launch.arg(&count).arg(&pixels).arg(&channels).arg(&relu).arg(&mut y);
        // SAFETY: as above.
        unsafe { launch.launch(rows.config::<T>(BLOCKS)) }.map_err(candle_core::Error::wrap)?;
        Ok(y)
    }

    /// Sums for the gradients of a norm, and what of the gradient passes its ReLU, where `keep` asks for it.
    pub(super) fn norm_gradient_sums<T: Number>(
        &self,
        incoming: &Incoming<'_, T>,
        x: &CudaSlice<T>,
        statistics: &Statistics,
        rows: Rows,
        keep: bool,
    ) -> Result<(PartialSums, Option<CudaSlice<T>>)> {
        let Incoming { gradient, further, output, relu, factors } = *incoming;
        check(&[(gradient.len(), rows.values()), (x.len(), rows.values()), (statistics.0.len(), 4 * rows.channels)])?;
        check_optional(further, rows.values())?;
        check_optional(output, rows.values())?;
        check_optional(factors, rows.images)?;
        let config = rows.config::<T>(SUMMING_BLOCKS);
        let parts = config.grid_dim.1 as usize;
        let mut sums = self.uninitialised(parts * 2 * rows.channels)?;
        let mut passed = keep.then(|| self.uninitialised(rows.values())).transpose()?;
        let function = self.function::<T>("norm_gradient_sums")?;
        let [count, pixels, channels] = [rows.count(), rows.pixels, rows.channels].map(|size| size as u32);
        let relu = u32::from(relu);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gradient);
        optional(&mut launch, further);
        optional(&mut launch, output);
        launch.arg(x).arg(&statistics.0);
        optional(&mut launch, factors);
        launch.arg(&count).arg(&pixels).arg(&channels).arg(&relu);
        match &mut passed {
            Some(passed) => launch.arg(passed),
            None => launch.arg(&NOTHING),
        };
        launch.arg(&mut sums);
        // SAFETY: as above.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        drop(launch);
        Ok((PartialSums { sums, parts }, passed))
    }

    pub(super) fn norm_gradient_totals(
        &self,
        partial: &PartialSums,
        statistics: &Statistics,
        rows: Rows,
        follows_batch: bool,
    ) -> Result<NormTotals> {
        check(&[(statistics.0.len(), 4 * rows.channels), (partial.sums.len(), partial.parts * 2 * rows.channels)])?;
        let mut of_weight = self.uninitialised(rows.channels)?;
        let mut of_bias = self.uninitialised(rows.channels)?;
        let mut coefficients = self.uninitialised(3 * rows.channels)?;
        let function = self.plain("norm_gradient_totals")?;
        let [parts, count, channels] = [partial.parts, rows.count(), rows.channels].map(|size| size as u32);
        let follows_batch = u32::from(follows_batch);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(&count).arg(&channels).arg(&statistics.0).arg(&follows_batch);
        launch.arg(&mut of_weight).arg(&mut of_bias).arg(&mut coefficients);
        // SAFETY: as above.
        unsafe { launch.launch(per_channel(rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(NormTotals { of_weight, of_bias, coefficients })
    }

    /// The gradient before a norm; `relu` as in [`Incoming`], for a gradient that has not passed it yet.
    pub(super) fn norm_gradient<T: Number>(
        &self,
        (gradient, relu): (&CudaSlice<T>, bool),
        x: &CudaSlice<T>,
        (statistics, totals): (&Statistics, &NormTotals),
        factors: Option<&CudaSlice<f32>>,
        rows: Rows,
    ) -> Result<CudaSlice<T>> {
        check(&[(gradient.len(), rows.values()), (x.len(), rows.values()), (statistics.0.len(), 4 * rows.channels)])?;
        check(&[(totals.coefficients.len(), 3 * rows.channels)])?;
        check_optional(factors, rows.images)?;
        let mut to = self.uninitialised(rows.values())?;
        let function = self.function::<T>("norm_gradient")?;
        let [count, pixels, channels] = [rows.count(), rows.pixels, rows.channels].map(|size| size as u32);
        let relu = u32::from(relu);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gradient).arg(x).arg(&statistics.0).arg(&totals.coefficients);
        optional(&mut launch, factors);
        launch.arg(&count).arg(&pixels).arg(&channels).arg(&relu).arg(&mut to);
        // SAFETY: as above.
        unsafe { launch.launch(rows.config::<T>(BLOCKS)) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    pub(super) fn add<T: Number>(&self, a: &CudaSlice<T>, b: &CudaSlice<T>) -> Result<CudaSlice<T>> {
        check(&[(b.len(), a.len()), (a.len() % pack::<T>(), 0)])?;
        let mut to = self.uninitialised(a.len())?;
        let function = self.function::<T>("add")?;
        let packs = (a.len() / pack::<T>()) as u32;
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(a).arg(b).arg(&packs).arg(&mut to);
        // SAFETY: as above.
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
        // SAFETY: as above.
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
        // SAFETY: as above.
        unsafe { launch.launch(one_each(input / pack::<T>())) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    /// The mean of 2×2 pixels.
    pub(super) fn mean_pool<T: Number>(
        &self,
        x: &CudaSlice<T>,
        pooling: Pooling,
        window: Mean,
    ) -> Result<CudaSlice<T>> {
        let (input, output) = pooling.values();
        check(&[(x.len(), input)])?;
        self.window("mean_pool", x, pooling, window.numbers(), (output, pack::<T>()))
    }

    /// The gradient of what comes out → that of what goes in.
    pub(super) fn mean_pool_gradient<T: Number>(
        &self,
        gradient: &CudaSlice<T>,
        pooling: Pooling,
        window: Mean,
    ) -> Result<CudaSlice<T>> {
        let (input, output) = pooling.values();
        check(&[(gradient.len(), output)])?;
        self.window("mean_pool_gradient", gradient, pooling, window.numbers(), (input, pack::<T>()))
    }

    /// Every pixel that a stride reaches, with channels of zeros around its own.
    pub(super) fn shift_channels<T: Number>(
        &self,
        x: &CudaSlice<T>,
        pooling: Pooling,
        shift: Shift,
    ) -> Result<CudaSlice<T>> {
        check(&[(x.len(), pooling.values().0)])?;
        self.window("shift_channels", x, pooling, shift.numbers(), (shift.values(pooling), 1))
    }

    /// The gradient of what comes out → that of what goes in.
    pub(super) fn shift_channels_gradient<T: Number>(
        &self,
        gradient: &CudaSlice<T>,
        pooling: Pooling,
        shift: Shift,
    ) -> Result<CudaSlice<T>> {
        check(&[(gradient.len(), shift.values(pooling))])?;
        self.window("shift_channels_gradient", gradient, pooling, shift.numbers(), (pooling.values().0, 1))
    }

    /// Starts a kernel that makes `values`, so many in each thread, of a map.
    fn window<T: Number>(
        &self,
        name: &str,
        from: &CudaSlice<T>,
        pooling: Pooling,
        numbers: [u32; 2],
        (values, of_thread): (usize, usize),
    ) -> Result<CudaSlice<T>> {
        let mut to = self.uninitialised(values)?;
        let function = self.function::<T>(name)?;
        let sizes = pooling.sizes();
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(from);
        all(&mut launch, &sizes);
        all(&mut launch, &numbers);
        launch.arg(&mut to);
        // SAFETY: as above.
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
        // SAFETY: as above.
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
        // SAFETY: as above.
        unsafe { launch.launch(one_each(rows.values() / pack::<T>())) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    /// (out, in, taps) → (out, taps, in).
    pub(super) fn pack_weights<T: Number>(
        &self,
        weights: &CudaView<'_, f32>,
        [out, inputs, taps]: [usize; 3],
    ) -> Result<CudaSlice<T>> {
        check(&[(weights.len(), out * inputs * taps)])?;
        let mut to = self.uninitialised(weights.len())?;
        let function = self.function::<T>("pack_weights")?;
        let [count, inputs, taps] = [weights.len(), inputs, taps].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(weights).arg(&count).arg(&inputs).arg(&taps).arg(&mut to);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(count as usize)) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    /// (out, taps, in) → (out, in, taps).
    pub(super) fn unpack_weights<T: Number>(
        &self,
        weights: &CudaSlice<T>,
        [out, inputs, taps]: [usize; 3],
    ) -> Result<CudaSlice<f32>> {
        check(&[(weights.len(), out * inputs * taps)])?;
        let mut to = self.uninitialised(weights.len())?;
        let function = self.function::<T>("unpack_weights")?;
        let [count, inputs, taps] = [weights.len(), inputs, taps].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(weights).arg(&count).arg(&inputs).arg(&taps).arg(&mut to);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(count as usize)) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    fn function<T: Number>(&self, name: &str) -> Result<CudaFunction> {
        self.plain(&format!("{name}_{}", T::DTYPE.as_str()))
    }

    fn plain(&self, name: &str) -> Result<CudaFunction> {
        let function = self.device.get_or_load_custom_func(name, "candle_resnet_training", KERNELS)?;
        Ok(function.into_cuda_function())
    }

    /// Memory that a kernel writes all of.
    fn uninitialised<T: DeviceRepr>(&self, values: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every caller hands it to a kernel that writes each value, before anything on the stream reads it.
        unsafe { self.device.alloc(values) }
    }
}

/// How a mean of 2×2 pixels goes over a map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mean {
    pub(super) stride: usize,
    /// Whether zeros beyond the last row and column count.
    pub(super) zeros: bool,
}

impl Mean {
    fn numbers(self) -> [u32; 2] {
        [self.stride as u32, u32::from(self.zeros)]
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

fn optional<'a, T>(launch: &mut LaunchArgs<'a>, slice: Option<&'a CudaSlice<T>>) {
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
fn one_each(count: usize) -> LaunchConfig {
    let grid_dim = (count.div_ceil(THREADS).max(1) as u32, 1, 1);
    LaunchConfig { grid_dim, block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 }
}

/// 32 threads for each of 32 channels of a block.
fn per_channel(channels: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (channels.div_ceil(32) as u32, 1, 1), block_dim: (32, 32, 1), shared_mem_bytes: 0 }
}

fn check(lengths: &[(usize, usize)]) -> Result<()> {
    match lengths.iter().find(|(length, wanted)| length != wanted) {
        Some((length, wanted)) => bail!("a kernel was given {length} values where it takes {wanted}"),
        None => Ok(()),
    }
}

fn check_optional<T>(slice: Option<&CudaSlice<T>>, wanted: usize) -> Result<()> {
    slice.map_or(Ok(()), |slice| check(&[(slice.len(), wanted)]))
}

fn check_norm(variables: &NormVariables<'_>, channels: usize) -> Result<()> {
    let NormVariables { weight, bias, running_mean, running_variance } = variables;
    check(&[weight, bias, running_mean, running_variance].map(|view| (view.len(), channels)))
}
