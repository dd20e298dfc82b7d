//! Whole layers over a batch, shared between the threads of a team: the safe face of the kernels.
//!
//! Says how a layer is split and hands each thread its part; parts of an output never overlap. Lengths are checked here, so
//! that no kernel reads or writes beyond a buffer whatever the shapes.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::buffer::{Buffer, floats_for, view, view_mut};
use super::channelwise::{Affine, Reduce, Reduction};
use super::convolution::{ConvolutionShape, Convolve, input_blocks};
use super::crew::{Crew, Dismissal};
use super::dispatch::Kernels;
use super::grouped::ConvolveGroups;
use super::lanes::LANES;
use super::map::{Extent, Writable, blocks_of};
use super::pool::{PoolPlanes, Window};
use super::stored::{Stored, filled_up};
use super::strassen::{PRODUCTS, Strassen, products_floats, split_values};
use super::winograd::{MAX_TILES, Multiply, MultiplyPlain, Scheme, Tiles, TransformInputs, TransformOutputs};

/// Bytes of input that a thread goes over again and again, so that they stay in its second-level cache.
const REUSED_BYTES: usize = 400 << 10;
/// Bytes of sums of input that a thread goes over for each pair of columns.
const SPLIT_BYTES: usize = 640 << 10;
/// Transformed weights above this many bytes are read for more tiles at once.
const HEAVY_WEIGHTS: usize = 4 << 20;

/// Threads that work on the same images.
#[derive(Clone, Copy)]
pub(crate) struct Team<'a> {
    pub(crate) kernels: &'static Kernels,
    /// Parts that a layer is shared in.
    width: usize,
    /// Who does them; nobody but the caller where there is none.
    crew: Option<&'a Crew>,
}

/// Memory of a team that outlives its layers; whoever uses it decides what kind of values lie there.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Each share's own.
    pub(super) own: Vec<Mutex<Buffer>>,
    /// What all of them read.
    pub(super) shared: Buffer,
}

/// What both kinds of convolution have in common.
pub(crate) struct Layer<'a, S> {
    pub(crate) images: usize,
    /// (images, blocks, pixels, 16).
    pub(crate) input: &'a [S],
    /// In the order that the kernel wants.
    pub(crate) weights: &'a [S],
    /// Channel blocks of the output that are computed together: 1 or 2.
    pub(crate) column_blocks: usize,
    /// (blocks, 16).
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; as the output.
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    /// (images, blocks, pixels, 16).
    pub(crate) output: &'a mut [S],
}

/// A convolution by Winograd's method, of its scheme's stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WinogradShape {
    pub(crate) scheme: Scheme,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) groups: usize,
    /// Whether weights come as for [`Team::convolve`] and are transformed on the way; without groups, and for 3×3 kernels.
    pub(crate) plain: bool,
    pub(crate) input: Extent,
    pub(crate) output: Extent,
    /// Zeros before the first row and column.
    pub(crate) padding: usize,
}

pub(super) fn part(count: usize, share: usize, of: usize) -> Range<usize> {
    count * share / of..count * (share + 1) / of
}

/// `range` in pieces of at most `size`, as equal as can be.
pub(super) fn pieces(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let count = range.len().div_ceil(size.max(1));
    (0..count).map(move |index| {
        let piece = part(range.len(), index, count);
        range.start + piece.start..range.start + piece.end
    })
}

impl Team<'_> {
    /// One thread.
    pub(crate) fn alone(kernels: &'static Kernels) -> Team<'static> {
        Team { kernels, width: 1, crew: None }
    }

    /// Calls `work` with a team of up to `width` threads of the current pool, the caller among them. The pool's threads may
    /// all be there until `work` returns: it must not wait for the pool itself.
    pub(crate) fn gather<T>(kernels: &'static Kernels, width: usize, work: impl FnOnce(&Team) -> T) -> T {
        if width == 1 {
            return work(&Team::alone(kernels));
        }
        let crew = Crew::new();
        rayon::in_place_scope(|scope| {
            let _dismissal = Dismissal(&crew);
            for _ in 1..width {
                scope.spawn(|_| crew.help());
            }
            work(&Team { kernels, width, crew: Some(&crew) })
        })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Runs `work` once for each share.
    pub(super) fn share(&self, work: impl Fn(usize) + Sync) {
        match self.crew {
            None => (0..self.width).for_each(work),
            Some(crew) => crew.run(self.width, &work),
        }
    }

    /// Runs `work` once for each share, with memory of its own.
    pub(super) fn share_with(&self, scratch: &mut Vec<Mutex<Buffer>>, work: impl Fn(usize, &mut Buffer) + Sync) {
        if scratch.len() < self.width {
            scratch.resize_with(self.width, Mutex::default);
        }
        // Nobody else has the share: the lock is free.
        self.share(|share| work(share, &mut scratch[share].lock().unwrap_or_else(PoisonError::into_inner)));
    }

    /// Any convolution, as one matrix product.
    pub(crate) fn convolve<S: Stored>(&self, shape: &ConvolutionShape, layer: Layer<S>, scratch: &mut Scratch) {
        let (of_input, of_output) = layer.check(
            (shape.input, shape.in_channels),
            (shape.output, shape.out_channels),
            blocks_of(shape.out_channels) / layer.column_blocks
                * shape.segments(0)
                * shape.length::<S>()
                * layer.column_blocks
                * LANES,
        );
        let columns = blocks_of(shape.out_channels) / layer.column_blocks;
        let by_columns = self.width > 1
            && columns >= self.width
            && layer.weights.len() > layer.images * shape.output.pixels() * LANES;
        let per_pixel = shape.segments(0) * LANES * size_of::<S>();
        let most = (REUSED_BYTES / per_pixel).clamp(28, 4096);
        let each = if by_columns { most } else { most.min(shape.output.pixels().div_ceil(self.width)) };
        let blocks: Vec<Range<usize>> = pieces(0..shape.output.pixels(), each).collect();
        let units = layer.images * blocks.len();
        let output = Writable::new(layer.output);
        let apart = S::sums_apart(each, layer.column_blocks);
        let panel = floats_for::<S>(shape.panel::<S>(each));
        self.share_with(&mut scratch.own, |share, own| {
            let (units, range) = match by_columns {
                true => (0..units, part(columns, share, self.width)),
                false => (part(units, share, self.width), 0..columns),
            };
            own.reserve(panel + apart);
            let (panel, sums) = own.as_mut_slice().split_at_mut(panel);
            for unit in units {
                let (image, pixels) = (unit / blocks.len(), blocks[unit % blocks.len()].clone());
                let of_image = image * of_output..(image + 1) * of_output;
                let mut call = Convolve {
                    shape,
                    input: &layer.input[image * of_input..][..of_input],
                    weights: layer.weights,
                    column_blocks: layer.column_blocks,
                    bias: layer.bias,
                    residual: layer.residual.map(|residual| &residual[of_image]),
                    relu: layer.relu,
                    pixels,
                    range: range.clone(),
                    panel: view_mut(panel),
                    sums,
                    image: image * of_output,
                    output,
                };
                // SAFETY: lengths were checked; units or columns differ between threads.
                unsafe { (S::kernels(self.kernels).convolve)(&mut call) };
            }
        });
    }

    /// A 1×1 convolution of any stride, by Strassen's method.
    pub(crate) fn strassen<S: Stored>(&self, shape: &ConvolutionShape, layer: Layer<S>, scratch: &mut Scratch) {
        let (half, of_pair) = (blocks_of(shape.in_channels) / 2, 2 * layer.column_blocks);
        assert!(shape.kernel == 1 && shape.padding == 0 && shape.groups == 1);
        assert!(shape.in_channels.is_multiple_of(2 * LANES) && shape.out_channels.is_multiple_of(of_pair * LANES));
        let columns = blocks_of(shape.out_channels) / of_pair;
        let weights = columns * PRODUCTS * half * LANES * layer.column_blocks * LANES;
        let (of_input, of_output) =
            layer.check((shape.input, shape.in_channels), (shape.output, shape.out_channels), weights);
        let by_columns = self.width > 1
            && columns >= self.width
            && layer.weights.len() > layer.images * shape.output.pixels() * LANES;
        let pairs = shape.output.pixels().div_ceil(2);
        let most = (SPLIT_BYTES / (PRODUCTS * half * LANES * size_of::<S>())).clamp(28, 4096);
        let each = if by_columns { most } else { most.min(pairs.div_ceil(self.width)) };
        let blocks: Vec<Range<usize>> = pieces(0..pairs, each).collect();
        let units = layer.images * blocks.len();
        let output = Writable::new(layer.output);
        let split = floats_for::<S>(split_values::<S>(shape.in_channels, each));
        let products = products_floats(layer.column_blocks, each);
        self.share_with(&mut scratch.own, |share, own| {
            let (units, range) = match by_columns {
                true => (0..units, part(columns, share, self.width)),
                false => (part(units, share, self.width), 0..columns),
            };
            own.reserve(split + products);
            let (split, products) = own.as_mut_slice().split_at_mut(split);
            for unit in units {
                let (image, pairs) = (unit / blocks.len(), &blocks[unit % blocks.len()]);
                let of_image = image * of_output..(image + 1) * of_output;
                let mut call = Strassen {
                    shape,
                    input: &layer.input[image * of_input..][..of_input],
                    weights: layer.weights,
                    column_blocks: layer.column_blocks,
                    bias: layer.bias,
                    residual: layer.residual.map(|residual| &residual[of_image]),
                    relu: layer.relu,
                    pixels: 2 * pairs.start..(2 * pairs.end).min(shape.output.pixels()),
                    range: range.clone(),
                    split: view_mut(split),
                    products,
                    image: image * of_output,
                    output,
                };
                // SAFETY: lengths were checked; units or columns differ between threads.
                unsafe { (S::kernels(self.kernels).strassen)(&mut call) };
            }
        });
    }

    /// A convolution of groups of 1, 2, 4, 8 or 16 channels, as many in as out.
    pub(crate) fn convolve_groups<S: Stored>(&self, shape: &ConvolutionShape, layer: Layer<S>) {
        let of_group = shape.in_channels / shape.groups;
        assert!(shape.in_channels == shape.out_channels && LANES.is_multiple_of(of_group));
        let blocks = blocks_of(shape.out_channels);
        let weights = blocks * shape.kernel * shape.kernel * of_group * LANES;
        layer.check((shape.input, shape.in_channels), (shape.output, shape.out_channels), weights);
        let Layer { images, input, weights, bias, residual, relu, output, .. } = layer;
        let output = Writable::new(output);
        self.share(|share| {
            let planes = part(images * blocks, share, self.width);
            let call = ConvolveGroups { shape, input, weights, bias, residual, relu, blocks, planes, output };
            // SAFETY: lengths were checked; planes differ between threads.
            unsafe { (S::kernels(self.kernels).convolve_groups)(&call) };
        });
    }

    /// A convolution by Winograd's method.
    pub(crate) fn winograd<S: Stored>(&self, shape: &WinogradShape, layer: Layer<S>, scratch: &mut Scratch) {
        assert!(!shape.plain || (shape.groups == 1 && shape.scheme.takes_plain_weights()));
        let of_pair = if shape.plain { 9 } else { shape.scheme.products() };
        let weights = of_pair
            * input_blocks((shape.in_channels, shape.out_channels), shape.groups, 0).len()
            * if shape.plain { LANES } else { filled_up::<S>(shape.in_channels.min(LANES)) }
            * blocks_of(shape.out_channels)
            * LANES;
        layer.check((shape.input, shape.in_channels), (shape.output, shape.out_channels), weights);
        let tiles = layer.images * shape.scheme.tiles(shape.output);
        let heavy = size_of_val(layer.weights) >= HEAVY_WEIGHTS;
        let most = if heavy { MAX_TILES } else { MAX_TILES / 2 };
        // Tiles of 81 points are as large as two of 36.
        let at_once = if shape.scheme.points() > 6 { most / 2 } else { most };
        let columns = blocks_of(shape.out_channels) / layer.column_blocks;
        let few = tiles < self.width * 28 || (heavy && tiles < self.width * at_once);
        let Layer { input, weights, column_blocks, bias, residual, relu, output, .. } = layer;
        let layer = InputOf { input, weights, column_blocks, bias, residual, relu };
        let call = WinogradCall { team: self, shape, layer, columns, output: Writable::new(output) };
        if self.width > 1 && columns >= self.width && few {
            for tiles in pieces(0..tiles, at_once) {
                call.by_columns(tiles, scratch);
            }
        } else {
            call.by_tiles(tiles, at_once, &mut scratch.own);
        }
    }

    /// A pool of `planes` channel blocks of images.
    pub(crate) fn pool<S: Stored>(
        &self,
        window: Window,
        stride: usize,
        extents: (Extent, Extent),
        from: &[S],
        to: &mut [S],
    ) {
        let (input, output) = extents;
        let planes = to.len() / (output.pixels() * LANES);
        assert!(from.len() >= planes * input.pixels() * LANES);
        let blurred = window != Window::Blur || (input.height > 1 && input.width > 1);
        assert!(blurred, "a map of one row or column cannot be reflected");
        let centres = |size: usize, count: usize| count > 0 && (count - 1) * stride < size;
        assert!(centres(input.height, output.height) && centres(input.width, output.width));
        let to = Writable::new(to);
        self.share(|share| {
            let planes = part(planes, share, self.width);
            // SAFETY: planes lie within both buffers and differ between threads; every window's centre is a pixel.
            unsafe { (S::kernels(self.kernels).pool)(&PoolPlanes { window, stride, input, output, from, planes, to }) };
        });
    }

    /// One number for every channel of every image.
    pub(crate) fn reduce<S: Stored>(
        &self,
        reduction: Reduction,
        extent: Extent,
        from: &[S],
        centres: &[f32],
        to: &mut [f32],
    ) {
        let planes = to.len() / LANES;
        assert!(extent.pixels() > 0 && from.len() >= planes * extent.pixels() * LANES);
        assert!(reduction != Reduction::Spread || centres.len() >= planes * LANES);
        let to = Writable::new(to);
        self.share(|share| {
            let planes = part(planes, share, self.width);
            // SAFETY: planes lie within the buffers and differ between threads.
            unsafe { (S::kernels(self.kernels).reduce)(&Reduce { reduction, extent, from, centres, planes, to }) };
        });
    }

    /// `x * scale + shift + residual` with a scale and shift for every channel of every image.
    pub(crate) fn affine<S: Stored>(&self, extent: Extent, change: &Change<S>, to: &mut [S]) {
        let &Change { from, scale, shift, residual, relu } = change;
        let planes = to.len() / (extent.pixels() * LANES);
        assert!(scale.len() >= planes * LANES && shift.len() >= planes * LANES && from.len() >= to.len());
        assert!(residual.is_none_or(|residual| residual.len() >= to.len()));
        let to = Writable::new(to);
        self.share(|share| {
            let planes = part(planes, share, self.width);
            // SAFETY: planes lie within the buffers and differ between threads.
            unsafe {
                (S::kernels(self.kernels).affine)(&Affine { extent, from, scale, shift, residual, relu, planes, to })
            };
        });
    }
}

/// What [`Team::affine`] does to a map.
pub(crate) struct Change<'a, S> {
    /// (planes, pixels, 16).
    pub(crate) from: &'a [S],
    /// (planes, 16).
    pub(crate) scale: &'a [f32],
    /// (planes, 16).
    pub(crate) shift: &'a [f32],
    /// (planes, pixels, 16).
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
}

impl<S> Layer<'_, S> {
    /// Asserts every length; values of an image in and out.
    fn check(&self, input: (Extent, usize), output: (Extent, usize), weights: usize) -> (usize, usize) {
        let (of_input, of_output) = (input.0.values(blocks_of(input.1)), output.0.values(blocks_of(output.1)));
        let whole = self.images * of_output;
        assert!(self.input.len() >= self.images * of_input && self.output.len() >= whole);
        assert!(self.residual.is_none_or(|residual| residual.len() >= whole));
        assert!(self.weights.len() >= weights && self.bias.len() >= blocks_of(output.1) * LANES);
        assert!(blocks_of(output.1).is_multiple_of(self.column_blocks));
        (of_input, of_output)
    }
}

/// A [`Layer`] without its output.
#[derive(Clone, Copy)]
struct InputOf<'a, S> {
    input: &'a [S],
    weights: &'a [S],
    column_blocks: usize,
    bias: &'a [f32],
    residual: Option<&'a [S]>,
    relu: bool,
}

struct WinogradCall<'a, S> {
    team: &'a Team<'a>,
    shape: &'a WinogradShape,
    layer: InputOf<'a, S>,
    columns: usize,
    output: Writable<'a, S>,
}

impl<S: Stored> WinogradCall<'_, S> {
    fn tiles(&self, tiles: Range<usize>) -> Tiles {
        let WinogradShape { scheme, input, output, padding, .. } = *self.shape;
        Tiles::new(scheme, input, output, padding, tiles)
    }

    /// Each thread takes tiles of its own, from the input to the output.
    fn by_tiles(&self, tiles: usize, at_once: usize, scratch: &mut Vec<Mutex<Buffer>>) {
        let blocks = blocks_of(self.shape.in_channels);
        self.team.share_with(scratch, |share, own| {
            for tiles in pieces(part(tiles, share, self.team.width), at_once) {
                let tiles = self.tiles(tiles);
                let inputs = floats_for::<S>(tiles.transformed_inputs(blocks));
                own.reserve(inputs + self.products(&tiles, self.columns));
                let (transformed, products) = own.as_mut_slice().split_at_mut(inputs);
                self.transform(&tiles, 0..blocks, Writable::new(view_mut(transformed)));
                self.multiply(&tiles, view(transformed), 0..self.columns, products);
                self.transform_back(&tiles, products, 0..self.columns);
            }
        });
    }

    /// All threads take the same tiles: first each some channels of the input, then each some of the output.
    fn by_columns(&self, tiles: Range<usize>, scratch: &mut Scratch) {
        let (tiles, blocks) = (self.tiles(tiles), blocks_of(self.shape.in_channels));
        scratch.shared.reserve(floats_for::<S>(tiles.transformed_inputs(blocks)));
        let transformed = Writable::new(view_mut(scratch.shared.as_mut_slice()));
        self.team.share(|share| self.transform(&tiles, part(blocks, share, self.team.width), transformed));
        let transformed = view(scratch.shared.as_slice());
        self.team.share_with(&mut scratch.own, |share, products| {
            let columns = part(self.columns, share, self.team.width);
            products.reserve(self.products(&tiles, columns.len()));
            self.multiply(&tiles, transformed, columns.clone(), products.as_mut_slice());
            self.transform_back(&tiles, products.as_slice(), columns);
        });
    }

    fn transform(&self, tiles: &Tiles, range: Range<usize>, transformed: Writable<S>) {
        let blocks = blocks_of(self.shape.in_channels);
        assert!(transformed.len() >= tiles.transformed_inputs(blocks));
        let call = TransformInputs { tiles, input: self.layer.input, blocks, range, transformed };
        // SAFETY: lengths were checked; channel blocks differ between threads.
        unsafe { (S::kernels(self.team.kernels).transform_inputs)(&call) }
    }

    /// Floats for the products of some columns, and for weights that are transformed on the way.
    fn products(&self, tiles: &Tiles, columns: usize) -> usize {
        let weights = if self.shape.plain { tiles.transformed_weights(self.layer.column_blocks) } else { 0 };
        tiles.transformed_outputs(columns * self.layer.column_blocks) + floats_for::<S>(weights)
    }

    fn multiply(&self, tiles: &Tiles, transformed: &[S], range: Range<usize>, products: &mut [f32]) {
        let column_blocks = self.layer.column_blocks;
        let (products, scratch) = products.split_at_mut(tiles.transformed_outputs(range.len() * column_blocks));
        let (weights, products) = (self.layer.weights, Writable::new(products));
        if self.shape.plain {
            let blocks = blocks_of(self.shape.in_channels);
            let scratch = view_mut(scratch);
            assert!(scratch.len() >= tiles.transformed_weights(column_blocks));
            let mut call =
                MultiplyPlain { tiles, transformed, blocks, weights, column_blocks, range, scratch, products };
            // SAFETY: lengths were checked; products and scratch are this thread's own.
            return unsafe { (S::kernels(self.team.kernels).multiply_plain)(&mut call) };
        }
        let (channels, groups) = ((self.shape.in_channels, self.shape.out_channels), self.shape.groups);
        let columns = self.columns;
        let call = Multiply { tiles, transformed, channels, groups, weights, column_blocks, columns, range, products };
        // SAFETY: lengths were checked; the products are this thread's own.
        unsafe { (S::kernels(self.team.kernels).multiply)(&call) }
    }

    fn transform_back(&self, tiles: &Tiles, products: &[f32], columns: Range<usize>) {
        let InputOf { column_blocks, bias, residual, relu, .. } = self.layer;
        let call = TransformOutputs {
            tiles,
            products,
            blocks: blocks_of(self.shape.out_channels),
            range: columns.start * column_blocks..columns.end * column_blocks,
            bias,
            residual,
            relu,
            output: self.output,
        };
        // SAFETY: lengths were checked; tiles or channel blocks differ between threads.
        unsafe { (S::kernels(self.team.kernels).transform_outputs)(&call) }
    }
}
