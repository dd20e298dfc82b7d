//! Norms, and gates over channels: the kernels of `norms.cu`.

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaSlice, CudaView, LaunchConfig, PushKernelArg};
use candle_core::{Result, bail};

use super::launch::{Launcher, NOTHING, Rows, THREADS, check, check_optional, one_each, optional, pack};
use crate::cudnn::Number;

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/norms.ptx"));

/// Threads that sum over a group's channels.
const GROUP_THREADS: usize = 128;

/// Blocks of kernels that only write, and of kernels whose sums others add up: enough to keep the largest chips busy.
const BLOCKS: usize = 2048;
const SUMMING_BLOCKS: usize = 512;

/// What is normalised together: a segment of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segments {
    /// All images of a batch.
    Batch,
    /// Each image by itself.
    Images,
}

impl Segments {
    fn count(self, rows: Rows) -> usize {
        match self {
            Segments::Batch => 1,
            Segments::Images => rows.images,
        }
    }

    fn rows_of_each(self, rows: Rows) -> usize {
        rows.count() / self.count(rows)
    }

    /// Blocks of threads side by side over channels, which come in whole packs, over rows, and over segments.
    fn config<T>(self, rows: Rows, most_blocks: usize) -> LaunchConfig {
        debug_assert!(rows.channels.is_multiple_of(pack::<T>()));
        let (segments, vectors) = (self.count(rows), rows.channels / pack::<T>());
        let side_by_side = vectors.next_power_of_two().min(32);
        let (across, high) = (vectors.div_ceil(side_by_side), THREADS / side_by_side);
        let most_down = most_blocks.div_ceil(across * segments);
        let down = self.rows_of_each(rows).div_ceil(high).min(most_down);
        let grid_dim = [across, down, segments].map(|blocks| blocks as u32).into();
        LaunchConfig { grid_dim, block_dim: (side_by_side as u32, high as u32, 1), shared_mem_bytes: 0 }
    }
}

/// Sums over some of the rows of a segment each; (segments, parts, 2, channels).
#[derive(Debug)]
pub(super) struct PartialSums {
    sums: CudaSlice<f32>,
    parts: usize,
    segments: Segments,
}

impl PartialSums {
    fn check(&self, rows: Rows, segments: Segments) -> Result<()> {
        if self.segments != segments {
            bail!("sums are of a {:?}, where those of {segments:?} are taken", self.segments);
        }
        check(&[(self.sums.len(), segments.count(rows) * self.parts * 2 * rows.channels)])
    }
}

/// What a norm normalises by, and with; (segments, 4, channels): mean, 1 / √(variance + ε), scale, shift.
#[derive(Debug)]
pub(super) struct Statistics {
    values: CudaSlice<f32>,
    segments: Segments,
    /// Whether they follow what is normalised; running ones do not.
    follow: bool,
}

impl Statistics {
    fn check(&self, rows: Rows) -> Result<()> {
        check(&[(self.values.len(), self.segments.count(rows) * 4 * rows.channels)])
    }
}

/// What each pixel's gradient is made of, (segments, 3, channels): what its own counts, the map, and nothing.
#[derive(Debug)]
pub(super) struct Coefficients(CudaSlice<f32>);

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

/// What the sums of a norm's gradient give.
pub(super) struct NormTotals {
    pub(super) of_weight: CudaSlice<f32>,
    pub(super) of_bias: CudaSlice<f32>,
    pub(super) coefficients: Coefficients,
}

impl Launcher {
    /// Sums for the mean and the variance of each channel of a segment.
    pub(super) fn norm_moments<T: Number>(
        &self,
        x: &CudaSlice<T>,
        rows: Rows,
        segments: Segments,
    ) -> Result<PartialSums> {
        check(&[(x.len(), rows.values())])?;
        let config = segments.config::<T>(rows, SUMMING_BLOCKS);
        let parts = config.grid_dim.1 as usize;
        let mut sums = self.uninitialised(segments.count(rows) * parts * 2 * rows.channels)?;
        let function = self.norm_kernel::<T>("norm_moments")?;
        let (count, channels) = (segments.rows_of_each(rows) as u32, rows.channels as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(x).arg(&count).arg(&channels).arg(&mut sums);
        // SAFETY: the slices are as long as rows and channels say.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        Ok(PartialSums { sums, parts, segments })
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
        check(&[(x.len(), rows.values())])?;
        partial.check(rows, Segments::Batch)?;
        let mut statistics = self.uninitialised(4 * rows.channels)?;
        let function = self.norm_kernel::<T>("norm_batch_statistics")?;
        let (parts, count, channels) = (partial.parts as u32, rows.count() as u32, rows.channels as u32);
        let (epsilon, momentum) = (epsilon as f32, momentum as f32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(x).arg(&count).arg(&channels);
        launch.arg(&variables.weight).arg(&variables.bias).arg(&epsilon).arg(&momentum);
        launch.arg(&variables.running_mean).arg(&variables.running_variance).arg(&mut statistics);
        // SAFETY: as above. Running statistics are written in place, as by an in-place operation of candle's: whatever reads them waits
        // on the same stream.
        unsafe { launch.launch(per_channel(rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(Statistics { values: statistics, segments: Segments::Batch, follow: true })
    }

    pub(super) fn norm_running_statistics(
        &self,
        variables: &NormVariables<'_>,
        channels: usize,
        epsilon: f64,
    ) -> Result<Statistics> {
        check_norm(variables, channels)?;
        let mut statistics = self.uninitialised(4 * channels)?;
        let function = self.plain_norm_kernel("norm_running_statistics")?;
        let (count, epsilon) = (channels as u32, epsilon as f32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&variables.running_mean).arg(&variables.running_variance).arg(&variables.weight);
        launch.arg(&variables.bias).arg(&epsilon).arg(&count).arg(&mut statistics);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(Statistics { values: statistics, segments: Segments::Batch, follow: false })
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
        check(&[(x.len(), rows.values())])?;
        statistics.check(rows)?;
        check_optional(residual, rows.values())?;
        check_optional(factors, rows.images)?;
        let mut y = self.uninitialised(rows.values())?;
        let function = self.norm_kernel::<T>("norm_apply")?;
        let [count, pixels, channels] =
            [statistics.segments.rows_of_each(rows), rows.pixels, rows.channels].map(|size| size as u32);
        let relu = u32::from(relu);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(x);
        optional(&mut launch, residual);
        launch.arg(&statistics.values);
        optional(&mut launch, factors);
        launch.arg(&count).arg(&pixels).arg(&channels).arg(&relu).arg(&mut y);
        // SAFETY: as above.
        unsafe { launch.launch(statistics.segments.config::<T>(rows, BLOCKS)) }.map_err(candle_core::Error::wrap)?;
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
        check(&[(gradient.len(), rows.values()), (x.len(), rows.values())])?;
        statistics.check(rows)?;
        check_optional(further, rows.values())?;
        check_optional(output, rows.values())?;
        check_optional(factors, rows.images)?;
        let segments = statistics.segments;
        let config = segments.config::<T>(rows, SUMMING_BLOCKS);
        let parts = config.grid_dim.1 as usize;
        let mut sums = self.uninitialised(segments.count(rows) * parts * 2 * rows.channels)?;
        let mut passed = keep.then(|| self.uninitialised(rows.values())).transpose()?;
        let function = self.norm_kernel::<T>("norm_gradient_sums")?;
        let [count, pixels, channels] =
            [statistics.segments.rows_of_each(rows), rows.pixels, rows.channels].map(|size| size as u32);
        let relu = u32::from(relu);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gradient);
        optional(&mut launch, further);
        optional(&mut launch, output);
        launch.arg(x).arg(&statistics.values);
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
        Ok((PartialSums { sums, parts, segments }, passed))
    }

    pub(super) fn norm_gradient_totals(
        &self,
        partial: &PartialSums,
        statistics: &Statistics,
        rows: Rows,
    ) -> Result<NormTotals> {
        partial.check(rows, statistics.segments)?;
        statistics.check(rows)?;
        if statistics.segments != Segments::Batch {
            bail!("a batch norm was given statistics of images");
        }
        let mut of_weight = self.uninitialised(rows.channels)?;
        let mut of_bias = self.uninitialised(rows.channels)?;
        let mut coefficients = self.uninitialised(3 * rows.channels)?;
        let function = self.plain_norm_kernel("norm_gradient_totals")?;
        let [parts, count, channels] = [partial.parts, rows.count(), rows.channels].map(|size| size as u32);
        let follows_batch = u32::from(statistics.follow);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(&count).arg(&channels).arg(&statistics.values).arg(&follows_batch);
        launch.arg(&mut of_weight).arg(&mut of_bias).arg(&mut coefficients);
        // SAFETY: as above.
        unsafe { launch.launch(per_channel(rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(NormTotals { of_weight, of_bias, coefficients: Coefficients(coefficients) })
    }

    /// The gradient before a norm; `relu` as in [`Incoming`], for a gradient that has not passed it yet.
    pub(super) fn norm_gradient<T: Number>(
        &self,
        (gradient, relu): (&CudaSlice<T>, bool),
        x: &CudaSlice<T>,
        (statistics, coefficients): (&Statistics, &Coefficients),
        factors: Option<&CudaSlice<f32>>,
        rows: Rows,
    ) -> Result<CudaSlice<T>> {
        check(&[(gradient.len(), rows.values()), (x.len(), rows.values())])?;
        statistics.check(rows)?;
        check(&[(coefficients.0.len(), statistics.segments.count(rows) * 3 * rows.channels)])?;
        check_optional(factors, rows.images)?;
        let mut to = self.uninitialised(rows.values())?;
        let function = self.norm_kernel::<T>("norm_gradient")?;
        let [count, pixels, channels] =
            [statistics.segments.rows_of_each(rows), rows.pixels, rows.channels].map(|size| size as u32);
        let relu = u32::from(relu);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gradient).arg(x).arg(&statistics.values).arg(&coefficients.0);
        optional(&mut launch, factors);
        launch.arg(&count).arg(&pixels).arg(&channels).arg(&relu).arg(&mut to);
        // SAFETY: as above.
        unsafe { launch.launch(statistics.segments.config::<T>(rows, BLOCKS)) }.map_err(candle_core::Error::wrap)?;
        Ok(to)
    }

    /// Of `groups` of channels of each image, from the moments of images.
    pub(super) fn group_statistics<T: Number>(
        &self,
        partial: &PartialSums,
        x: &CudaSlice<T>,
        (rows, groups): (Rows, usize),
        (weight, bias): (&CudaView<'_, f32>, &CudaView<'_, f32>),
        epsilon: f64,
    ) -> Result<Statistics> {
        check(&[(x.len(), rows.values()), (weight.len(), rows.channels), (bias.len(), rows.channels)])?;
        partial.check(rows, Segments::Images)?;
        let config = per_group(rows, groups)?;
        let mut values = self.uninitialised(rows.images * 4 * rows.channels)?;
        let function = self.norm_kernel::<T>("group_statistics")?;
        let [parts, pixels, channels] = [partial.parts, rows.pixels, rows.channels].map(|size| size as u32);
        let epsilon = epsilon as f32;
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(x).arg(&pixels).arg(&channels);
        launch.arg(weight).arg(bias).arg(&epsilon).arg(&mut values);
        // SAFETY: as above.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        Ok(Statistics { values, segments: Segments::Images, follow: true })
    }

    pub(super) fn group_gradient_totals(
        &self,
        partial: &PartialSums,
        statistics: &Statistics,
        (rows, groups): (Rows, usize),
    ) -> Result<NormTotals> {
        partial.check(rows, statistics.segments)?;
        statistics.check(rows)?;
        if statistics.segments != Segments::Images {
            bail!("a group norm was given statistics of a batch");
        }
        let config = per_group(rows, groups)?;
        let mut of_images = self.uninitialised::<f32>(rows.images * 2 * rows.channels)?;
        let mut coefficients = self.uninitialised(rows.images * 3 * rows.channels)?;
        let function = self.plain_norm_kernel("group_gradient_totals")?;
        let [parts, images, pixels, channels] =
            [partial.parts, rows.images, rows.pixels, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(&pixels).arg(&channels).arg(&statistics.values);
        launch.arg(&mut of_images).arg(&mut coefficients);
        // SAFETY: as above.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        let mut of_weight = self.uninitialised(rows.channels)?;
        let mut of_bias = self.uninitialised(rows.channels)?;
        let function = self.plain_norm_kernel("group_parameter_gradients")?;
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&of_images).arg(&images).arg(&channels).arg(&mut of_weight).arg(&mut of_bias);
        // SAFETY: as above.
        unsafe { launch.launch(per_channel(rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(NormTotals { of_weight, of_bias, coefficients: Coefficients(coefficients) })
    }

    /// (images, channels), from the moments of images.
    pub(super) fn means<T: Number>(
        &self,
        partial: &PartialSums,
        x: &CudaSlice<T>,
        rows: Rows,
    ) -> Result<CudaSlice<f32>> {
        check(&[(x.len(), rows.values())])?;
        partial.check(rows, Segments::Images)?;
        let mut means = self.uninitialised(rows.images * rows.channels)?;
        let function = self.norm_kernel::<T>("segment_means")?;
        let [parts, images, pixels, channels] =
            [partial.parts, rows.images, rows.pixels, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(x).arg(&images).arg(&pixels).arg(&channels).arg(&mut means);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(rows.images * rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(means)
    }

    /// Those of a norm that weighs every channel by its gate, (images, channels), and does nothing else.
    pub(super) fn gate_statistics(&self, gates: &CudaView<'_, f32>, rows: Rows) -> Result<Statistics> {
        check(&[(gates.len(), rows.images * rows.channels)])?;
        let mut values = self.uninitialised(4 * gates.len())?;
        let function = self.plain_norm_kernel("gate_statistics")?;
        let [images, channels] = [rows.images, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gates).arg(&images).arg(&channels).arg(&mut values);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(gates.len())) }.map_err(candle_core::Error::wrap)?;
        Ok(Statistics { values, segments: Segments::Images, follow: false })
    }

    /// (images, channels).
    pub(super) fn gate_gradient(&self, partial: &PartialSums, rows: Rows) -> Result<CudaSlice<f32>> {
        partial.check(rows, Segments::Images)?;
        let mut gradient = self.uninitialised(rows.images * rows.channels)?;
        let function = self.plain_norm_kernel("gate_gradient")?;
        let [parts, images, channels] = [partial.parts, rows.images, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&partial.sums).arg(&parts).arg(&images).arg(&channels).arg(&mut gradient);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(rows.images * rows.channels)) }.map_err(candle_core::Error::wrap)?;
        Ok(gradient)
    }

    /// Of gates, and of the gradient of the means that they follow from, both (images, channels).
    pub(super) fn gate_coefficients(
        &self,
        gates: &CudaView<'_, f32>,
        of_means: &CudaView<'_, f32>,
        rows: Rows,
    ) -> Result<Coefficients> {
        let values = rows.images * rows.channels;
        check(&[(gates.len(), values), (of_means.len(), values)])?;
        let mut coefficients = self.uninitialised(3 * values)?;
        let function = self.plain_norm_kernel("gate_coefficients")?;
        let [images, pixels, channels] = [rows.images, rows.pixels, rows.channels].map(|size| size as u32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(gates).arg(of_means).arg(&images).arg(&pixels).arg(&channels).arg(&mut coefficients);
        // SAFETY: as above.
        unsafe { launch.launch(one_each(values)) }.map_err(candle_core::Error::wrap)?;
        Ok(Coefficients(coefficients))
    }

    fn norm_kernel<T: Number>(&self, name: &str) -> Result<CudaFunction> {
        self.plain_norm_kernel(&format!("{name}_{}", T::DTYPE.as_str()))
    }

    fn plain_norm_kernel(&self, name: &str) -> Result<CudaFunction> {
        Ok(self.device.get_or_load_custom_func(name, "candle_resnet_norms", KERNELS)?.into_cuda_function())
    }
}

/// 32 threads for each of 32 channels of a block.
fn per_channel(channels: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (channels.div_ceil(32) as u32, 1, 1), block_dim: (32, 32, 1), shared_mem_bytes: 0 }
}

/// A block for each group of each image.
fn per_group(rows: Rows, groups: usize) -> Result<LaunchConfig> {
    if groups == 0 || !rows.channels.is_multiple_of(groups) {
        bail!("{} channels cannot be normalised in {groups} groups", rows.channels);
    }
    let grid_dim = (groups as u32, rows.images as u32, 1);
    Ok(LaunchConfig { grid_dim, block_dim: (GROUP_THREADS as u32, 1, 1), shared_mem_bytes: 0 })
}

fn check_norm(variables: &NormVariables<'_>, channels: usize) -> Result<()> {
    let NormVariables { weight, bias, running_mean, running_variance } = variables;
    check(&[weight, bias, running_mean, running_variance].map(|view| (view.len(), channels)))
}
