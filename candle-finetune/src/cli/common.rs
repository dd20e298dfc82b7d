//! Arguments and steps that several commands share.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf, is_separator};

use anyhow::{Context, bail};
use candle_core::Device;
use candle_finetune::dataset::{self, Dataset};
use candle_resnet::Model;
use candle_resnet::catalogue::Catalogue;
use candle_resnet::hub::{Hub, HubSettings};
use candle_resnet::model::{Loader, ModelRequest, WeightsChoice};
use candle_resnet::plan::{InstructionSet, PlanOptions, Precision, Workload};
use candle_resnet::preprocess::{Interpolation, Preprocessing, PreprocessingError, check_photo_channels};
use clap::{Args, ValueEnum};
use tempfile::NamedTempFile;

use super::progress::DownloadBar;

/// Which model.
#[derive(Args)]
pub struct ModelArguments {
    /// A model's name (see `finetune models`), `hf-hub:owner/name[@revision]`, or a folder that `finetune train`, timm or transformers wrote
    #[arg(long, value_name = "NAME|FOLDER")]
    pub model: String,

    /// Take the weights of the named architecture from this file (.safetensors, .pth, .pt, .th, .bin)
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,

    #[command(flatten)]
    pub channels: ChannelsArgument,

    #[command(flatten)]
    pub catalogue: CatalogueArgument,
}

/// How many channels images have.
#[derive(Args, Clone, Copy)]
pub struct ChannelsArgument {
    /// Channels of an image: 1 makes photos grey; adapts the first convolution where the weights are for others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_chans: Option<u16>,
}

impl ChannelsArgument {
    /// So many, where anybody said.
    pub fn of(channels: Option<usize>) -> ChannelsArgument {
        ChannelsArgument { in_chans: channels.and_then(|channels| channels.try_into().ok()) }
    }

    /// What was asked for.
    pub fn get(self) -> Option<usize> {
        self.in_chans.map(usize::from)
    }
}

/// Which cards names may stand for beside those that ship with the program.
#[derive(Args, Clone)]
pub struct CatalogueArgument {
    /// Folder of private model cards, whose names then work as others do: JSON files of one card or a list of cards
    #[arg(long, value_name = "DIR", env = "FINETUNE_MODELS_DIR", hide_env_values = true)]
    models_dir: Option<OsString>, // a path may not be empty; an environment variable may
}

impl CatalogueArgument {
    /// Reads the cards.
    pub fn open(&self) -> anyhow::Result<Catalogue> {
        let built_in = Catalogue::built_in();
        match self.models_dir.as_deref().filter(|folder| !folder.is_empty()) {
            Some(folder) => Ok(built_in.with_folder(folder.as_ref()).map_err(candle_resnet::Error::from)?),
            None => Ok(built_in),
        }
    }
}

/// Largest side of an input that a `config.json` may ask for, in pixels.
const LARGEST_INPUT: usize = 4096;

/// Changes to a model's own preprocessing.
#[derive(Args)]
#[command(next_help_heading = "Preprocessing (the model's own if left out)")]
pub struct PreprocessingArguments {
    /// Side of the square that is cut out of the middle, in pixels
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<usize>,

    /// What the shorter side is resized to before, in pixels; keeps the model's proportion if left out
    #[arg(long, value_name = "PIXELS")]
    resize: Option<usize>,

    /// Filter of the resize
    #[arg(long)]
    interpolation: Option<InterpolationArgument>,

    /// Mean of each channel, of values from 0 to 1; one number for all of them
    #[arg(long, value_name = "R,G,B", allow_hyphen_values = true, value_parser = three_numbers)]
    mean: Option<[f32; 3]>,

    /// Standard deviation of each channel
    #[arg(long, value_name = "R,G,B", value_parser = three_numbers)]
    std: Option<[f32; 3]>,
}

#[derive(Clone, Copy, ValueEnum)]
enum InterpolationArgument {
    Bilinear,
    Bicubic,
}

fn three_numbers(text: &str) -> Result<[f32; 3], String> {
    let numbers: Result<Vec<f32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[all]) => Ok([all; 3]),
        Ok(&[red, green, blue]) => Ok([red, green, blue]),
        _ => Err("expected one number, or three such as 0.485,0.456,0.406".into()),
    }
}

impl PreprocessingArguments {
    /// The model with what was asked for changed.
    ///
    /// # Errors
    /// If that cannot be, or if the model does not take photos.
    pub fn adapt(&self, model: Model) -> anyhow::Result<Model> {
        check_photo_channels(model.architecture.in_channels)?;
        Ok(Model { preprocessing: self.apply(&model.preprocessing)?, ..model })
    }

    /// `base` with what was asked for changed.
    fn apply(&self, base: &Preprocessing) -> anyhow::Result<Preprocessing> {
        let crop = self.input_size.unwrap_or(base.crop);
        let proportional = crop.saturating_mul(base.resize) / base.crop.max(1);
        let changed = Preprocessing {
            resize: self.resize.unwrap_or(proportional),
            crop,
            interpolation: match self.interpolation {
                Some(InterpolationArgument::Bilinear) => Interpolation::Bilinear,
                Some(InterpolationArgument::Bicubic) => Interpolation::Bicubic,
                None => base.interpolation,
            },
            mean: self.mean.unwrap_or(base.mean),
            std: self.std.unwrap_or(base.std),
        };
        changed.validate()?;
        check_crop(&changed)?;
        Ok(changed)
    }
}

/// Refuses what a bundle's `config.json` cannot say: there the crop is a fraction of the resized side.
fn check_crop(Preprocessing { resize, crop, .. }: &Preprocessing) -> anyhow::Result<()> {
    if *crop > LARGEST_INPUT {
        bail!("`input-size` is {crop}, expected 1 to {LARGEST_INPUT} pixels");
    }
    if !(*crop..100 * crop).contains(resize) {
        bail!("`resize` is {resize}, expected at least the input size, {crop}, and less than 100 times that");
    }
    Ok(())
}

impl ModelArguments {
    /// What to load; `fresh` asks for weights drawn from that seed.
    pub fn request(&self, fresh: Option<u64>) -> ModelRequest {
        let weights = match (&self.weights, fresh) {
            (Some(file), _) => WeightsChoice::File(file.clone()),
            (None, Some(seed)) => WeightsChoice::Fresh { seed },
            (None, None) => WeightsChoice::Named,
        };
        ModelRequest { name: self.model.clone(), weights, in_channels: self.channels.get() }
    }

    /// The folder that `model`, which was loaded, lies in; nothing where its weights are from elsewhere.
    pub fn bundle(&self, model: &Model) -> Option<&Path> {
        let folder = model.provenance.file.as_deref().and_then(Path::parent);
        Some(Path::new(&self.model)).filter(|named| self.weights.is_none() && folder == Some(*named))
    }

    /// Whether `--in-chans` makes another network of the one that the model's files hold.
    fn folds_channels(&self) -> anyhow::Result<bool> {
        let Some(channels) = self.channels.get() else { return Ok(false) };
        let catalogue = self.catalogue.open()?;
        let description = with_loader(&catalogue, |loader| loader.describe(&self.request(None)))?;
        Ok(description.architecture.in_channels != channels)
    }

    /// Loads the model for photos that are prepared as was asked for, and says whether that is otherwise than its files say.
    pub fn load_for(&self, preprocessing: &PreprocessingArguments) -> anyhow::Result<(Model, bool)> {
        let model = self.load(None)?;
        let own = model.preprocessing.clone();
        let model = preprocessing.adapt(model)?;
        let is_otherwise = model.preprocessing != own || self.folds_channels()?;
        Ok((model, is_otherwise))
    }

    /// Loads the model, fetching it first where it is not at hand.
    pub fn load(&self, fresh: Option<u64>) -> anyhow::Result<Model> {
        self.load_telling(fresh, &mut print_note)
    }

    /// The same; what is worth knowing of it is told to `tell`.
    pub fn load_telling(&self, fresh: Option<u64>, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Model> {
        let catalogue = self.catalogue.open()?;
        let model = with_loader(&catalogue, |loader| loader.load(&self.request(fresh)))?;
        licence_note(&model).iter().for_each(|note| tell(note));
        Ok(model)
    }
}

/// Runs `work` with a loader that shows downloads on the terminal.
pub fn with_loader<T>(
    catalogue: &Catalogue,
    work: impl FnOnce(&Loader<'_>) -> candle_resnet::Result<T>,
) -> anyhow::Result<T> {
    let hub = Hub::new(HubSettings::from_env()).map_err(candle_resnet::Error::from)?;
    let progress = DownloadBar::new();
    Ok(work(&Loader { hub: &hub, catalogue, progress: &progress })?)
}

/// Weights that may not be used commercially say so when they are chosen.
fn licence_note(model: &Model) -> Option<String> {
    let license = model.provenance.license.as_deref().filter(|license| license.contains("-nc"))?;
    Some(format!("these weights are licensed {license}: no commercial use"))
}

fn print_note(note: &str) {
    say!("note: {note}");
}

/// Where to compute.
#[derive(Args)]
pub struct DeviceArgument {
    /// Where to compute: cpu, cuda, cuda:N or metal [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

impl DeviceArgument {
    /// What somebody asked for before; empty where nobody did.
    pub fn named(name: &str) -> DeviceArgument {
        DeviceArgument { device: Some(name.to_owned()).filter(|name| !name.is_empty()) }
    }

    /// Opens the device.
    pub fn open(&self) -> anyhow::Result<Device> {
        match self.name().split_once(':').unwrap_or((self.name(), "0")) {
            ("cpu", "0") => Ok(Device::Cpu),
            ("cuda", ordinal) => self.open_cuda(ordinal.parse().context(self.unknown())?),
            ("metal", "0") => self.open_metal(),
            _ => bail!(self.unknown()),
        }
    }

    fn open_cuda(&self, ordinal: usize) -> anyhow::Result<Device> {
        if !candle_core::utils::cuda_is_available() {
            bail!(self.not_built_in("cuda"));
        }
        Device::new_cuda(ordinal)
            .map_err(|error| self.not_there(&error, "`nvidia-smi` lists the GPUs that the driver knows"))
    }

    fn open_metal(&self) -> anyhow::Result<Device> {
        if !candle_core::utils::metal_is_available() {
            bail!(self.not_built_in("metal"));
        }
        Device::new_metal(0).map_err(|error| self.not_there(&error, "Metal needs a Mac with a GPU"))
    }

    fn not_built_in(&self, feature: &str) -> String {
        format!(
            "this program was built without support for `{}`\n\
             hint: build it with `cargo install --path candle-finetune --locked --features {feature}`",
            self.name()
        )
    }

    fn not_there(&self, error: &candle_core::Error, fact: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "cannot open device `{}`: {error}\nhint: {fact}; without `--device` the CPU computes",
            self.name()
        )
    }

    fn unknown(&self) -> String {
        format!("unknown device `{}`, expected cpu, cuda, cuda:N or metal", self.name())
    }

    /// The name that was asked for, or that of the CPU.
    pub fn name(&self) -> &str {
        self.device.as_deref().unwrap_or("cpu")
    }

    /// The name, where anybody said it.
    pub fn given(&self) -> Option<&str> {
        self.device.as_deref()
    }
}

/// How photos are read, and where what becomes of them is computed.
#[derive(Args)]
pub struct ReadingArguments {
    /// End at the first image that cannot be read instead of skipping it
    #[arg(long)]
    pub strict: bool,

    #[command(flatten)]
    pub device: DeviceArgument,

    #[command(flatten)]
    pub preprocessing: PreprocessingArguments,

    #[command(flatten)]
    pub plan: PlanArguments,
}

impl ReadingArguments {
    /// Opens the device.
    pub fn open_device(&self) -> anyhow::Result<Device> {
        self.plan.open(&self.device)
    }
}

/// How networks compute.
#[derive(Args)]
#[command(next_help_heading = "Computing")]
pub struct PlanArguments {
    /// Instruction set of the kernels: avx512, avx2, neon or portable; the best there is if left out
    #[arg(long, value_name = "SET", env = "FINETUNE_INSTRUCTION_SET", value_parser = instruction_set)]
    instruction_set: Option<InstructionSet>,

    /// What the frozen network computes in, and with cuDNN what trains, too: f32; bf16, which is faster on CUDA and where the
    /// processor has instructions for it; or f16, on CUDA alone, as fast as bf16 there and eight times as exact [default: f32]
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,

    /// Keep weights as small as they are, at the cost of speed
    #[arg(long)]
    low_memory: bool,
}

fn instruction_set(name: &str) -> Result<InstructionSet, String> {
    let Some(set) = InstructionSet::ALL.into_iter().find(|set| set.name() == name) else {
        return Err("expected avx512, avx2, neon or portable".into());
    };
    if set.is_available() { Ok(set) } else { Err("this processor does not have it".into()) }
}

impl PlanArguments {
    /// What the kernels use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set.unwrap_or_else(InstructionSet::best)
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or_default()
    }

    /// Opens a device that computes in what was asked for.
    pub fn open(&self, device: &DeviceArgument) -> anyhow::Result<Device> {
        let opened = device.open()?;
        if let Err(error) = self.precision().check(&opened) {
            bail!(
                "{error}\n\
                 hint: give `--device cuda`, or another --precision than {}",
                self.precision()
            );
        }
        Ok(opened)
    }

    /// The same where somebody said before what it computes in; that does not count where it was asked for here.
    pub fn after(&self, precision: &str) -> anyhow::Result<PlanArguments> {
        let before = Some(precision).filter(|name| !name.is_empty()).map(str::parse).transpose();
        let before = before.map_err(|error: String| anyhow::anyhow!("`precision`: {error}"))?;
        Ok(PlanArguments { precision: self.precision.or(before), ..*self })
    }

    /// How to compile for a workload on `device`.
    pub fn options(&self, device: &Device, workload: Workload) -> PlanOptions {
        let instruction_set = self.instruction_set();
        if self.precision() == Precision::Bf16 && device.is_cpu() && !instruction_set.multiplies_bf16() {
            tracing::warn!(
                "this processor, or `{}`, has no instructions for bf16: expect it to be slower than f32",
                instruction_set.name()
            );
        }
        PlanOptions { instruction_set, precision: self.precision(), low_memory: self.low_memory, workload }
    }

    /// How to compile for `images` photos in all, at most `batch` at once, on `device`.
    pub fn options_for(&self, device: &Device, model: &Model, images: usize, batch: usize) -> PlanOptions {
        let side = model.preprocessing.crop;
        let batch = batch.min(images);
        self.options(device, Workload { image: (side, side), batch, images: Some(images), ..Workload::default() })
    }
}

/// Asks for weights drawn from a seed.
#[derive(Args)]
pub struct FreshArgument {
    /// Draw the weights from a seed instead of loading pretrained ones
    #[arg(long, conflicts_with = "weights")]
    pub no_pretrained: bool,
}

/// Reads a folder of labelled photos and tells what is worth knowing of it.
pub fn scan(dir: &Path) -> anyhow::Result<Dataset> {
    scan_telling(dir, &mut print_note)
}

/// The same, where it is told to `tell`.
pub fn scan_telling(dir: &Path, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Dataset> {
    let dataset = dataset::scan(dir).map_err(candle_finetune::Error::from)?;
    dataset.findings.iter().for_each(|finding| tell(&finding.to_string()));
    Ok(dataset)
}

/// Refuses, before the work, a file that cannot be made, or that is there and may not be replaced. What is no file, such as `/dev/stdout`, is never
/// replaced.
pub fn check_can_write(out: &Path, overwrite: bool) -> anyhow::Result<()> {
    check_names_a_file(out)?;
    if is_special(out) {
        return Ok(());
    }
    if out.exists() && !overwrite {
        return Err(candle_finetune::Error::Exists(out.into()).into());
    }
    new_file(&place_of(out)).map(drop)
}

/// Whether it is a pipe, or a device that takes one character after the other: what is written there replaces nothing.
pub fn is_special(out: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = fs::metadata(out).map(|what| what.file_type());
        kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device())
    }
    #[cfg(not(unix))]
    {
        let _ = out;
        false
    }
}

/// Refuses what can only be a folder, and a file in a folder that is not there.
pub fn check_names_a_file(out: &Path) -> anyhow::Result<()> {
    let parent = folder_of(out);
    if out.is_dir() || out.as_os_str().to_string_lossy().ends_with(is_separator) {
        bail!("{}: is a folder, expected a file to write", out.display());
    }
    if !is_special(out) && !out.is_file() && out.exists() {
        bail!("{}: is no file, and cannot be written as one", out.display());
    }
    // A file that a stream of this process goes to is not to be replaced under it.
    if out.is_file() && ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|system| out.starts_with(system))
    {
        bail!("{}: is a file that is open already\nhint: give its own name", out.display());
    }
    if !parent.is_dir() {
        bail!("{}: no such folder\nhint: make it, or choose another place", parent.display());
    }
    Ok(())
}

/// Writes beside the file and renames, so that a half-written one never has its name; a link stays one. A device or a pipe is written to.
pub fn write_whole(out: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let failed = |source| candle_finetune::Error::Io { path: out.into(), source };
    if is_special(out) {
        let mut special = OpenOptions::new().write(true).open(out).map_err(failed)?;
        return Ok(write(&mut special).map_err(failed)?);
    }
    let place = place_of(out);
    let mut file = new_file(&place)?;
    write(&mut file).map_err(failed)?;
    file.persist(&place).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Where a file lies that may be there already: behind links.
fn place_of(out: &Path) -> PathBuf {
    out.canonicalize().unwrap_or_else(|_| out.into())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside `out`, to be renamed when all of it is there.
pub fn new_file(out: &Path) -> anyhow::Result<NamedTempFile> {
    let parent = folder_of(out);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unfinished-");
    // A temporary file is its owner's alone; what comes of this one is like any other file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(parent).map_err(|source| candle_finetune::Error::Io { path: parent.into(), source }.into())
}

/// The way out of an error, where one of the libraries knows it.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let known = |cause: &(dyn std::error::Error + 'static)| {
        let finetune = cause.downcast_ref::<candle_finetune::Error>().and_then(candle_finetune::Error::hint);
        let model = || cause.downcast_ref::<candle_resnet::Error>().and_then(candle_resnet::Error::hint);
        let preprocessing = || cause.downcast_ref::<PreprocessingError>().and_then(PreprocessingError::hint);
        finetune.or_else(model).or_else(preprocessing)
    };
    error.chain().find_map(known)
}
