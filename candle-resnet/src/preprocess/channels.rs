//! Photos for networks whose images do not have three channels.
//!
//! One channel is grey, as `Image.convert("L")` makes it before the resize. Other numbers of channels have no photo:
//! such networks take tensors.

use std::borrow::Cow;

use super::{Photo, Preprocessing, PreprocessingError};

/// Red, green and blue of ITU-R 601's luma, in 65536ths, as Pillow rounds them.
const LUMA: [u32; 3] = [19595, 38470, 7471];

impl Photo {
    /// The photo as a network of `channels` channels sees it: as it is for three, and for one without colour, Pillow's luma
    /// in all three channels.
    ///
    /// # Errors
    /// If the network has another number of channels.
    pub fn for_channels(&self, channels: usize) -> Result<Cow<'_, Photo>, PreprocessingError> {
        check_photo_channels(channels)?;
        let grey = (channels == 1).then(|| self.grey()).flatten();
        Ok(grey.map_or(Cow::Borrowed(self), Cow::Owned))
    }

    fn grey(&self) -> Option<Photo> {
        let (pixels, _) = self.pixels().as_chunks();
        let grey = pixels.iter().flat_map(|&pixel| [luma(pixel); 3]).collect();
        Photo::from_rgb8(self.width(), self.height(), grey)
    }
}

/// The grey of a colour (red, green, blue) in `Image.convert("L")`.
pub fn luma(pixel: [u8; 3]) -> u8 {
    let sum: u32 = pixel.into_iter().zip(LUMA).map(|(level, weight)| u32::from(level) * weight).sum();
    ((sum + 0x8000) >> 16) as u8
}

impl Preprocessing {
    /// The photo as the input of a network of `channels` channels, `(channels, crop, crop)`: in colour where it has
    /// three, in grey where it has one.
    ///
    /// # Errors
    /// If it has another number of channels.
    pub fn input(&self, photo: &Photo, channels: usize) -> Result<Vec<f32>, PreprocessingError> {
        let photo = photo.for_channels(channels)?;
        Ok(self.planes(&self.pixels(&photo), channels))
    }

    /// [`input`](Self::input), written to `to`, which is to be as long as that is.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn write_input(&self, photo: &Photo, channels: usize, to: &mut [f32]) -> Result<(), PreprocessingError> {
        let photo = photo.for_channels(channels)?;
        self.write_planes(&self.pixels(&photo), to);
        Ok(())
    }

    /// [`normalise`](Self::normalise) for a network of `channels` channels, three or one.
    ///
    /// For one, `pixels` are those of a photo [`for_channels`](Photo::for_channels).
    pub fn planes(&self, pixels: &[u8], channels: usize) -> Vec<f32> {
        let mut planes = vec![0.0; pixels.len() / 3 * channels];
        self.write_planes(pixels, &mut planes);
        planes
    }

    /// [`planes`](Self::planes), written to `to`, which has room for as many channels as are to be written.
    pub fn write_planes(&self, pixels: &[u8], to: &mut [f32]) {
        let (pixels, _) = pixels.as_chunks::<3>();
        debug_assert!(to.len().is_multiple_of(pixels.len().max(1)), "room for whole channels");
        for (channel, plane) in to.chunks_exact_mut(pixels.len().max(1)).take(3).enumerate() {
            let table = self.levels(channel);
            plane.iter_mut().zip(pixels).for_each(|(value, pixel)| *value = table[usize::from(pixel[channel])]);
        }
    }

    /// The same for a network of `channels` channels. Where these are not three, each channel is normalised by the mean
    /// of the three means and of the three deviations, as timm does it.
    pub fn for_channels(self, channels: usize) -> Preprocessing {
        match channels {
            3 => self,
            _ => Preprocessing { mean: [average(self.mean); 3], std: [average(self.std); 3], ..self },
        }
    }
}

/// Whether photos can be the input of a network of `channels` channels.
///
/// # Errors
/// If there are neither three nor one.
pub fn check_photo_channels(channels: usize) -> Result<(), PreprocessingError> {
    if matches!(channels, 1 | 3) { Ok(()) } else { Err(PreprocessingError::Channels { found: channels }) }
}

/// The mean of decimals as people wrote them: of 0.485, 0.456 and 0.406 it is 0.449.
fn average(values: [f32; 3]) -> f32 {
    (values.map(decimal).iter().sum::<f64>() / 3.0) as f32
}

/// An f32 as the decimal that people wrote: 0.485, not 0.48500001430511475.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours and `Image.new("RGB", (1, 1), colour).convert("L")` of Pillow 13.0.
    const GREYS: [([u8; 3], u8); 6] = [
        ([0, 0, 0], 0),
        ([255, 255, 255], 255),
        ([255, 0, 0], 76),
        ([0, 255, 0], 150),
        ([0, 0, 255], 29),
        ([1, 2, 3], 2),
    ];

    #[test]
    fn grey_is_pillows() {
        for (colour, grey) in GREYS {
            let photo = Photo::from_rgb8(1, 1, colour.to_vec()).unwrap();
            assert_eq!(photo.grey().unwrap().pixels(), [grey; 3], "{colour:?}");
        }
    }

    #[test]
    fn one_channel_is_grey_and_three_are_colours() {
        let photo = Photo::from_rgb8(1, 1, vec![255, 0, 0]).unwrap();
        let recipe = Preprocessing { mean: [0.0; 3], std: [1.0; 3], ..Preprocessing::imagenet(1, 1) };
        assert_eq!(recipe.input(&photo, 3).unwrap(), [1.0, 0.0, 0.0]);
        assert_eq!(recipe.input(&photo, 1).unwrap(), [76.0 / 255.0]);
        let error = recipe.input(&photo, 4).unwrap_err();
        assert_eq!(error.to_string(), "a photo has 3 channels, or 1 in grey, and the network takes 4");
    }

    #[test]
    fn grey_is_normalised_by_the_means_of_the_statistics() {
        let grey = Preprocessing::imagenet(256, 224).for_channels(1);
        assert_eq!((grey.mean, grey.std), ([0.449; 3], [0.226; 3]));
        assert_eq!(grey.clone().for_channels(4), grey);
        assert_eq!(Preprocessing::cifar().for_channels(3), Preprocessing::cifar());
    }
}
