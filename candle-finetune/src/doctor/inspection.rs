//! One file: read once, and all kept that is asked of it later.
//!
//! An [`Inspector`] hands the same photos on to a network, so that no file is read twice.

use std::path::Path;
use std::sync::OnceLock;

use candle_resnet::preprocess::{self, Encoding, Note, Photo, PhotoError, Reason};
use sha2::{Digest, Sha256};

use super::thumbnail::Thumbnail;
use crate::dataset::Sample;
use crate::images::{ImageError, LabelledImages};

/// What a file is.
#[derive(Debug)]
pub(super) struct Inspection {
    /// SHA-256 of the file; none where it could not be read.
    pub digest: Option<[u8; 32]>,
    /// What its header says.
    pub encoding: Option<Encoding>,
    /// The picture, or why there is none.
    pub picture: Result<Picture, Fault>,
}

/// What is kept of a picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub width: usize,
    pub height: usize,
    pub notes: Vec<Note>,
    pub thumbnail: Thumbnail,
}

/// Why a file shows nothing.
#[derive(Debug)]
pub(super) struct Fault {
    pub is_empty: bool,
    pub reason: String,
}

impl From<&PhotoError> for Fault {
    fn from(error: &PhotoError) -> Fault {
        Fault { is_empty: matches!(error.reason, Reason::Empty), reason: error.reason.to_string() }
    }
}

/// The content of a file, and what it shows.
fn inspect(path: &Path) -> (Inspection, Result<Photo, PhotoError>) {
    let bytes = match preprocess::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return (Inspection { digest: None, encoding: None, picture: Err((&error).into()) }, Err(error)),
    };
    let photo = preprocess::decode_bytes(&bytes, path);
    let inspection = Inspection {
        digest: Some(Sha256::digest(&bytes).into()),
        encoding: preprocess::encoding(&bytes),
        picture: photo.as_ref().map(Picture::of).map_err(Fault::from),
    };
    (inspection, photo)
}

impl Picture {
    fn of(photo: &Photo) -> Picture {
        Picture {
            width: photo.width(),
            height: photo.height(),
            notes: photo.notes().to_vec(),
            thumbnail: Thumbnail::of(photo),
        }
    }
}

/// Files, each inspected when its photo is asked for.
pub(super) struct Inspector<'a> {
    samples: &'a [Sample],
    inspections: Vec<OnceLock<Inspection>>,
}

impl<'a> Inspector<'a> {
    pub fn new(samples: &'a [Sample]) -> Inspector<'a> {
        Inspector { samples, inspections: samples.iter().map(|_| OnceLock::new()).collect() }
    }

    /// What each file is, in the order of the samples.
    pub fn finish(self) -> Vec<Inspection> {
        let inspections = self.samples.iter().zip(self.inspections);
        inspections.map(|(sample, cell)| cell.into_inner().unwrap_or_else(|| inspect(&sample.path).0)).collect()
    }
}

impl LabelledImages for Inspector<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn label(&self, index: usize) -> usize {
        self.samples[index].label
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        let (inspection, photo) = inspect(&self.samples[index].path);
        self.inspections[index].get_or_init(|| inspection);
        Ok(photo?)
    }

    fn name(&self, index: usize) -> String {
        self.samples[index].path.display().to_string()
    }
}
