//! A model's outputs, and what it makes of a photo, beside a file of another program.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use candle_resnet::preprocess::{Preprocessing, decode_bytes};
use candle_resnet::{FeatureExtractor, Model, checkpoint};

use super::verdict;
use crate::cli::stdout::stdout;

/// What another program made of some images, or of one photo.
pub struct Reference {
    path: PathBuf,
    input: Tensor,
    logits: Option<Tensor>,
    features: Option<Tensor>,
    photo: Option<PhotoReference>,
}

/// An image file, and what came of it.
struct PhotoReference {
    bytes: Vec<u8>,
    /// (H, W, 3), u8.
    pixels: Option<Tensor>,
}

impl Reference {
    pub fn read(path: &Path) -> anyhow::Result<Reference> {
        let mut tensors = checkpoint::read(path).map_err(candle_resnet::Error::from)?;
        let mut take = |name: &str, rank: usize| take(&mut tensors, name, rank, path);
        let input = take("input", 4)?.with_context(|| format!("{}: holds no `input`", path.display()))?;
        let input = input.to_dtype(DType::F32)?;
        if input.dim(0)? == 0 {
            bail!("{}: `input` holds no images", path.display());
        }
        let as_f32 = |tensor: Option<Tensor>| tensor.map(|tensor| tensor.to_dtype(DType::F32)).transpose();
        let (logits, features) = (as_f32(take("logits", 2)?)?, as_f32(take("features", 2)?)?);
        if logits.is_none() && features.is_none() {
            bail!("{}: holds no `logits` and no `features`", path.display());
        }
        let pixels = take("pixels", 3)?.map(|pixels| bytes(&pixels, "pixels", path).map(|_| pixels)).transpose()?;
        let photo = take("photo", 1)?.map(|photo| bytes(&photo, "photo", path)).transpose()?;
        let photo = photo.map(|bytes| PhotoReference { bytes, pixels });
        Ok(Reference { path: path.into(), input, logits, features, photo })
    }

    /// Prints every difference, and tells whether all are small enough.
    pub fn compare(&self, model: &Model, tolerance: f64, device: &Device) -> anyhow::Result<bool> {
        let mut differences = self.network_differences(model, tolerance, device)?;
        if let Some(photo) = &self.photo {
            differences.push(self.photo_difference(photo, &model.preprocessing)?);
        }
        let mut out = stdout();
        for difference in &differences {
            writeln!(out, "{}", difference.text)?;
        }
        Ok(differences.iter().all(|difference| difference.passes))
    }

    fn network_differences(&self, model: &Model, tolerance: f64, device: &Device) -> anyhow::Result<Vec<Difference>> {
        let (found, expected) = (self.input.dim(1)?, model.architecture.in_channels);
        if found != expected {
            bail!("{}: `input` has {found} channels, expected {expected}", self.path.display());
        }
        check_pixels(&self.input)?;
        let input = self.input.to_device(device)?;
        let mut differences = Vec::new();
        let features = match &self.logits {
            Some(expected) => {
                let classifier = model.classifier(device)?;
                let features = classifier.trunk().features(&input)?;
                let logits = classifier.classify(&features)?;
                differences.push(Difference::between("logits", &logits, expected, tolerance)?);
                features
            }
            None => model.trunk(device)?.features(&input)?,
        };
        if let Some(expected) = &self.features {
            differences.push(Difference::between("features", &features, expected, tolerance)?);
        }
        Ok(differences)
    }

    /// The photo's pixels where the reference holds them, else its normalised tensor.
    fn photo_difference(&self, photo: &PhotoReference, preprocessing: &Preprocessing) -> anyhow::Result<Difference> {
        let side = preprocessing.crop;
        let decoded = decode_bytes(&photo.bytes, &self.path).map_err(candle_resnet::Error::from)?;
        let ours = preprocessing.pixels(&decoded);
        let levels = decoder_levels(&photo.bytes);
        if let Some(pixels) = &photo.pixels {
            let ours = Tensor::from_vec(ours, (side, side, 3), &Device::Cpu)?.to_dtype(DType::F32)?;
            let largest = largest_difference("pixels", &ours, &pixels.to_dtype(DType::F32)?)?;
            return Ok(Difference::of_photo("pixels", largest, levels, "levels of 255"));
        }
        let ours = Tensor::from_vec(preprocessing.normalise(&ours), (1, 3, side, side), &Device::Cpu)?;
        let largest = largest_difference("input", &ours, &self.input)?;
        let narrowest = preprocessing.std.into_iter().fold(f32::INFINITY, f32::min);
        let allowed = levels / 255.0 / f64::from(narrowest) + ROUNDING;
        Ok(Difference::of_photo("input", largest, allowed, "after normalisation"))
    }
}

/// Images (N, C, H, W) have pixels: a GPU's driver has words of its own for a tensor of nothing.
fn check_pixels(images: &Tensor) -> candle_core::Result<()> {
    let (_, channels, height, width) = images.dims4()?;
    if height == 0 || width == 0 {
        candle_core::bail!("images of shape ({channels}, {height}, {width}) where ({channels}, H, W) is expected");
    }
    Ok(())
}

/// A normalised value's last bits, which programs round differently.
const ROUNDING: f64 = 1e-5;

/// Levels by which decoders may differ: none, but where a format stores colour with loss.
fn decoder_levels(photo: &[u8]) -> f64 {
    const LOSSY: f64 = 8.0;
    let (jpeg, riff) = (photo.starts_with(&[0xFF, 0xD8]), photo.starts_with(b"RIFF"));
    if jpeg || riff { LOSSY } else { 0.0 }
}

fn take(
    tensors: &mut BTreeMap<String, Tensor>,
    name: &str,
    rank: usize,
    path: &Path,
) -> anyhow::Result<Option<Tensor>> {
    match tensors.remove(name) {
        Some(tensor) if tensor.rank() != rank => {
            bail!("{}: `{name}` has shape {:?}, expected {rank} dimensions", path.display(), tensor.dims())
        }
        tensor => Ok(tensor),
    }
}

fn bytes(tensor: &Tensor, name: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    if tensor.dtype() != DType::U8 {
        bail!("{}: `{name}` holds {:?}, expected U8", path.display(), tensor.dtype());
    }
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// One comparison, as it is told.
struct Difference {
    text: String,
    passes: bool,
}

impl Difference {
    /// Not a number passes nowhere.
    fn between(name: &str, ours: &Tensor, reference: &Tensor, tolerance: f64) -> anyhow::Result<Difference> {
        let (largest, scale) = (largest_difference(name, ours, reference)?, magnitude(reference)?);
        let passes = largest <= tolerance * scale;
        let fraction = largest / scale;
        let text = format!(
            "{name:<9} largest difference {largest:.3e}, {fraction:.3e} of the largest magnitude {scale:.4}: {}",
            verdict(passes)
        );
        Ok(Difference { text, passes })
    }

    fn of_photo(name: &str, largest: f64, allowed: f64, unit: &str) -> Difference {
        let passes = largest <= allowed;
        let text = format!("{name:<9} largest difference {largest} {unit}: {}", verdict(passes));
        Difference { text, passes }
    }
}

fn largest_difference(name: &str, ours: &Tensor, reference: &Tensor) -> anyhow::Result<f64> {
    if ours.dims() != reference.dims() {
        bail!("`{name}` has shape {:?}, the reference {:?}", ours.dims(), reference.dims());
    }
    Ok(magnitude(&(ours - &reference.to_device(ours.device())?)?)?)
}

/// Largest magnitude; not a number if one value is not.
fn magnitude(tensor: &Tensor) -> candle_core::Result<f64> {
    let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    if values.iter().any(|value| value.is_nan()) {
        return Ok(f64::NAN);
    }
    Ok(values.iter().fold(0.0, |largest: f64, &value| largest.max(value.abs().into())))
}
