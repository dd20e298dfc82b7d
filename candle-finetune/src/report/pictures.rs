//! Photos → pictures within a page: small JPEGs as data URIs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use candle_resnet::preprocess::Photo;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ImageResult, RgbImage};

/// The longer side, in pixels, of what is larger: sharp enough in a column of a phone's width.
const SIDE: u32 = 200;

const QUALITY: u8 = 78;

/// The whole photo, made smaller where it is large.
pub fn small(photo: &Photo) -> Option<RgbImage> {
    let picture = RgbImage::from_raw(photo.width() as u32, photo.height() as u32, photo.pixels().to_vec())?;
    Some(shrunk(&picture).unwrap_or(picture))
}

/// Nothing where it is small enough.
fn shrunk(picture: &RgbImage) -> Option<RgbImage> {
    let (width, height) = picture.dimensions();
    let scale = f64::from(SIDE) / f64::from(width.max(height).max(1));
    let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    (scale < 1.0).then(|| resize(picture, scaled(width), scaled(height), FilterType::Triangle))
}

/// A picture as `data:image/jpeg;base64,…`, made smaller where it is large.
///
/// # Errors
/// If the encoder refuses.
pub fn data_uri(picture: &RgbImage) -> ImageResult<String> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(shrunk(picture).as_ref().unwrap_or(picture))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(uri: &str) -> RgbImage {
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        image::load_from_memory(&bytes).unwrap().to_rgb8()
    }

    #[test]
    fn large_pictures_become_small_and_small_ones_stay() {
        let colour = image::Rgb([200, 90, 30]);
        for (size, shown) in
            [((800, 400), (200, 100)), ((400, 800), (100, 200)), ((32, 24), (32, 24)), ((4000, 2), (200, 1))]
        {
            let picture = decoded(&data_uri(&RgbImage::from_pixel(size.0, size.1, colour)).unwrap());
            assert_eq!(picture.dimensions(), shown);
            assert!(picture.pixels().all(|pixel| pixel.0.iter().zip(colour.0).all(|(&a, b)| a.abs_diff(b) <= 4)));
        }
    }
}
