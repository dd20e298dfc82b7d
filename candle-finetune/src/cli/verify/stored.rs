//! The certificate: the model's network with formula weights and its preprocessing of a built-in photo, beside what timm,
//! torchvision and Pillow made of them. Needs neither weights nor network.

use std::io::Write;

use anyhow::bail;
use candle_core::Device;
use candle_resnet::certificate::{Difference, NetworkDifference, NetworkReference, PixelDifference, PixelReference};
use candle_resnet::model::Description;
use candle_resnet::preprocess::{Interpolation, Preprocessing};

use super::verdict;
use crate::cli::stdout::stdout;

/// Prints every difference, and tells whether all are small enough.
pub fn compare(model: &Description, tolerance: f64, device: &Device) -> anyhow::Result<bool> {
    let networks = NetworkReference::compare_all(&model.architecture, device)?;
    if networks.is_empty() {
        bail!(
            "no reference of this variant of `{}` is stored\n\
             hint: compare with one of your own: `scripts/make_reference.py` writes it for --reference",
            model.architecture.name
        );
    }
    let mut out = stdout();
    let mut passed = true;
    for (reference, difference) in &networks {
        write!(out, "{}", network_text(reference, difference, tolerance))?;
        passed &= difference.trainable.passes(tolerance) && difference.frozen.passes(tolerance);
    }
    let (text, equal) = pixels(&model.preprocessing)?;
    write!(out, "{text}")?;
    say!("note: trained weights were not compared; --reference compares them");
    Ok(passed && equal)
}

fn network_text(reference: &NetworkReference, difference: &NetworkDifference, tolerance: f64) -> String {
    let [batch, channels, height, width] = reference.input;
    let line = |name: &str, value: fn(Difference) -> f64| {
        let (trainable, frozen) = (value(difference.trainable), value(difference.frozen));
        let passes = trainable <= tolerance && frozen <= tolerance;
        let verdict = verdict(passes);
        format!("{name:<9} largest difference {trainable:.1e} trainable, {frozen:.1e} frozen: {verdict}\n")
    };
    let same = difference.trainable.same_classes && difference.frozen.same_classes;
    format!(
        "{} with formula weights, {batch}×{channels}×{height}×{width}, beside {}\n{}{}{}",
        reference.model,
        reference.program(),
        line("logits", |difference| difference.logits),
        line("features", |difference| difference.features),
        if same { "" } else { "classes   the likeliest differ: FAILED\n" },
    )
}

/// What is told of the preprocessing, and whether it contradicts a reference.
fn pixels(preprocessing: &Preprocessing) -> anyhow::Result<(String, bool)> {
    let Preprocessing { resize, crop, interpolation, .. } = preprocessing;
    let filter = match interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    };
    let recipe = format!("built-in photo, resize {resize} {filter}, crop {crop}");
    let Some(reference) = PixelReference::of(preprocessing) else {
        return Ok((format!("{recipe}\npixels    not compared: no reference of these sizes is stored\n"), true));
    };
    let difference = reference.compare(preprocessing).map_err(candle_resnet::Error::from)?;
    let beside = format!("{recipe}, beside {}\n", PixelReference::program());
    Ok((format!("{beside}{}", pixel_text(&difference)), difference.passes()))
}

fn pixel_text(difference: &PixelDifference) -> String {
    let pixels = match difference.pixels_equal {
        true => "pixels    equal to the last bit: ok\n".into(),
        false => format!("pixels    differ, by up to {} levels where compared: FAILED\n", difference.largest),
    };
    let input = match difference.input_equal {
        Some(true) => "input     equal to the last bit after normalisation: ok\n",
        Some(false) => "input     differs after normalisation: FAILED\n",
        None => "input     not compared: no reference with this mean and standard deviation is stored\n",
    };
    pixels + input
}
