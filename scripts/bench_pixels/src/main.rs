//! Times what stands between a JPEG and a network's pixels, beside the crates that do the same job, on one thread.
//!
//! Every round runs everybody once over all photos, so that a busy machine slows all alike; medians and their ratios are
//! printed. The module under test is built in by its path: the rest of the library, which takes minutes, is not needed.

#[path = "../../../candle-resnet/src/preprocess/mod.rs"]
#[allow(dead_code, unused_imports)]
mod preprocess;

use std::{env, error::Error, fs, hint::black_box, path::Path, time::Instant};

use fast_image_resize as fir;
use preprocess::{Interpolation, Photo, Preprocessing};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

const ROUNDS: usize = 25;
const RESIZE: usize = 256;
const CROP: usize = 224;

type Runner<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: bench-pixels FOLDER_OF_JPEGS")?;
    let files = read_jpegs(Path::new(&folder))?;
    let photos: Vec<Photo> =
        files.iter().map(|bytes| preprocess::decode_bytes(bytes, Path::new("photo.jpg"))).collect::<Result<_, _>>()?;
    println!("{} photos, {ROUNDS} rounds, medians", files.len());
    let all = |decode: fn(&[u8])| files.iter().for_each(|bytes| decode(bytes));
    compare(
        "decoding",
        photos.len(),
        vec![
            (
                "candle-resnet",
                Box::new(move || all(|bytes| drop(black_box(preprocess::decode_bytes(bytes, Path::new("")).unwrap())))),
            ),
            ("zune-jpeg", Box::new(move || all(|bytes| drop(black_box(zune(bytes)))))),
        ],
    );
    for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
        let recipe = Preprocessing { interpolation, ..Preprocessing::imagenet(RESIZE, CROP) };
        let (mut whole, mut part) = (fir::Resizer::new(), fir::Resizer::new());
        let photos = &photos;
        compare(
            &format!("{RESIZE} → {CROP}, {interpolation:?}"),
            photos.len(),
            vec![
                (
                    "candle-resnet",
                    Box::new(move || photos.iter().for_each(|photo| drop(black_box(recipe.pixels(photo))))),
                ),
                (
                    "fast_image_resize, cropping its input",
                    Box::new(move || {
                        photos.iter().for_each(|photo| drop(black_box(fir_part(&mut part, photo, interpolation))));
                    }),
                ),
                (
                    "fast_image_resize, whole photo",
                    Box::new(move || {
                        photos.iter().for_each(|photo| drop(black_box(fir_whole(&mut whole, photo, interpolation))));
                    }),
                ),
            ],
        );
    }
    Ok(())
}

fn read_jpegs(folder: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if ["jpg", "jpeg"].contains(&extension.to_lowercase().as_str()) {
            files.push(fs::read(path)?);
        }
    }
    if files.is_empty() { Err("no .jpg or .jpeg there")? } else { Ok(files) }
}

/// Runs all in turn, and prints for each the median time and its ratio to the first's.
fn compare(what: &str, photos: usize, mut runners: Vec<Runner>) {
    let mut times = vec![Vec::new(); runners.len()];
    for _ in 0..ROUNDS {
        for (times, (_, run)) in times.iter_mut().zip(&mut runners) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64() / photos as f64);
        }
    }
    println!("{what}");
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    for ((name, _), time) in runners.iter().zip(&medians) {
        println!("  {:8.1} photos/s  {:7.4} ms  {:5.2} ×  {name}", 1.0 / time, 1e3 * time, time / medians[0]);
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn zune(bytes: &[u8]) -> Vec<u8> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options).decode().unwrap()
}

/// Pixels after the resize, and the first and the number of those that the crop shows.
fn axis(length: usize, shorter: usize) -> (usize, usize, usize) {
    let resized = RESIZE * length / shorter;
    (resized, (resized - CROP) / 2, CROP)
}

fn options(interpolation: Interpolation) -> fir::ResizeOptions {
    fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(match interpolation {
        Interpolation::Bilinear => fir::FilterType::Bilinear,
        Interpolation::Bicubic => fir::FilterType::CatmullRom,
    }))
}

fn source(photo: &Photo) -> fir::images::ImageRef<'_> {
    let (width, height) = (photo.width() as u32, photo.height() as u32);
    fir::images::ImageRef::new(width, height, photo.pixels(), fir::PixelType::U8x3).unwrap()
}

/// Computes only what the crop shows, as we do.
fn fir_part(resizer: &mut fir::Resizer, photo: &Photo, interpolation: Interpolation) -> Vec<u8> {
    let shorter = photo.width().min(photo.height());
    let shown = |length| {
        let (resized, first, count) = axis(length, shorter);
        let scale = length as f64 / resized as f64;
        (first as f64 * scale, count as f64 * scale)
    };
    let ((left, width), (top, height)) = (shown(photo.width()), shown(photo.height()));
    let mut out = fir::images::Image::new(CROP as u32, CROP as u32, fir::PixelType::U8x3);
    resizer.resize(&source(photo), &mut out, &options(interpolation).crop(left, top, width, height)).unwrap();
    out.into_vec()
}

/// The whole photo, of which the crop would then be copied.
fn fir_whole(resizer: &mut fir::Resizer, photo: &Photo, interpolation: Interpolation) -> Vec<u8> {
    let shorter = photo.width().min(photo.height());
    let [width, height] = [photo.width(), photo.height()].map(|length| axis(length, shorter).0 as u32);
    let mut out = fir::images::Image::new(width, height, fir::PixelType::U8x3);
    resizer.resize(&source(photo), &mut out, &options(interpolation)).unwrap();
    out.into_vec()
}
