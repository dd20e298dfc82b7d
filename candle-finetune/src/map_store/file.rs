//! A file of maps: safetensors, with the maps in rows and a flag for each row that is there.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_resnet::plan::Precision;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tempfile::NamedTempFile;

use super::error::{MapStoreError, io_error};

const MAPS: &str = "maps";
const PRESENT: &str = "present";

/// What a file has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    /// Maps.
    pub rows: usize,
    /// Channels, height and width of each.
    pub map: (usize, usize, usize),
    /// What values are held in.
    pub precision: Precision,
}

impl MapShape {
    /// Of the maps.
    pub fn bytes(&self) -> u64 {
        (self.rows * self.row_bytes()) as u64
    }

    /// Bytes of a whole file of them.
    pub(super) fn file_length(&self) -> u64 {
        (self.header().len() + self.rows) as u64 + self.bytes()
    }

    /// Values of a map.
    pub(crate) fn values(&self) -> usize {
        self.map.0 * self.map.1 * self.map.2
    }

    fn row_bytes(&self) -> usize {
        self.values() * self.dtype().0.size_in_bytes()
    }

    fn dtype(&self) -> (DType, &'static str) {
        match self.precision {
            Precision::F32 => (DType::F32, "F32"),
            Precision::Bf16 => (DType::BF16, "BF16"),
            Precision::F16 => (DType::F16, "F16"),
        }
    }

    /// The file up to its first tensor; its length is a multiple of 64.
    fn header(&self) -> Vec<u8> {
        let (rows, (channels, height, width)) = (self.rows, self.map);
        let maps = self.rows * self.row_bytes();
        let mut text = json!({
            MAPS: {"dtype": self.dtype().1, "shape": [rows, channels, height, width], "data_offsets": [0, maps]},
            PRESENT: {"dtype": "U8", "shape": [rows], "data_offsets": [maps, maps + rows]},
        })
        .to_string();
        let length = (8 + text.len()).next_multiple_of(64) - 8;
        text.extend(std::iter::repeat_n(' ', length - text.len()));
        [&(length as u64).to_le_bytes(), text.as_bytes()].concat()
    }
}

/// A file that is being written; nothing is to be found under its name before [`finish`](MapWriter::finish).
#[derive(Debug)]
pub struct MapWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    shape: MapShape,
    header: u64,
    present: Vec<u8>,
    /// The row that would follow.
    next: usize,
}

impl MapWriter {
    pub(super) fn create(path: PathBuf, shape: MapShape) -> Result<MapWriter, MapStoreError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        // What a killed run leaves behind counts among the store's files, and goes as they do.
        let file = tempfile::Builder::new().prefix(".unfinished-").suffix(super::SUFFIX).tempfile_in(folder);
        let file = file.map_err(io_error(folder))?;
        let header = shape.header();
        let mut writer = MapWriter {
            file: BufWriter::with_capacity(1 << 20, file),
            header: header.len() as u64,
            present: vec![0; shape.rows],
            path,
            shape,
            next: 0,
        };
        writer.run(|file, _| file.write_all(&header))?;
        Ok(writer)
    }

    /// Writes maps (N, C, H, W) to `rows`, one for each.
    ///
    /// # Errors
    /// [`MapStoreError::Io`], and those of tensor operations, among them for maps of another shape.
    pub fn write(&mut self, rows: &[usize], maps: &Tensor) -> Result<(), MapStoreError> {
        let (channels, height, width) = self.shape.map;
        let maps = maps.to_device(&Device::Cpu)?.to_dtype(self.shape.dtype().0)?;
        let maps = maps.reshape((rows.len(), channels * height * width))?;
        for (index, &row) in rows.iter().enumerate() {
            let bytes = bytes_of(&maps.get(index)?)?;
            if row != self.next {
                let place = self.header + (row * self.shape.row_bytes()) as u64;
                self.run(|file, _| file.seek(SeekFrom::Start(place)).map(drop))?;
            }
            self.run(|file, _| file.write_all(&bytes))?;
            self.present[row] = 1;
            self.next = row + 1;
        }
        Ok(())
    }

    /// Gives the file its name and opens it.
    ///
    /// # Errors
    /// [`MapStoreError::Io`].
    pub fn finish(mut self) -> Result<StoredMaps, MapStoreError> {
        let end = self.header + self.shape.bytes();
        self.run(|file, present| {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(present)?;
            file.flush()?;
            file.get_ref().as_file().sync_all()
        })?;
        let path = self.path;
        let file = self.file.into_inner().map_err(|error| io_error(&path)(error.into_error()))?;
        file.persist(&path).map_err(|error| io_error(&path)(error.error))?;
        StoredMaps::open(&path)
    }

    fn run(
        &mut self,
        write: impl FnOnce(&mut BufWriter<NamedTempFile>, &[u8]) -> io::Result<()>,
    ) -> Result<(), MapStoreError> {
        write(&mut self.file, &self.present).map_err(io_error(&self.path))
    }
}

/// The values of a vector as they are stored.
fn bytes_of(row: &Tensor) -> candle_core::Result<Vec<u8>> {
    Ok(match row.dtype() {
        DType::BF16 => row.to_vec1::<bf16>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F16 => row.to_vec1::<f16>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => row.to_vec1::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
    })
}

/// Maps in a file that is mapped into memory.
#[derive(Debug)]
pub struct StoredMaps {
    file: Mmap,
    path: PathBuf,
    /// Where the maps begin.
    first: usize,
    shape: MapShape,
    present: Vec<bool>,
}

impl StoredMaps {
    pub(super) fn open(path: &Path) -> Result<StoredMaps, MapStoreError> {
        let file = File::open(path).map_err(io_error(path))?;
        // SAFETY: the file is whole and under its final name; whoever writes such files writes them anew and renames them.
        let file = unsafe { Mmap::map(&file) }.map_err(io_error(path))?;
        let damaged =
            |reason: &dyn std::fmt::Display| MapStoreError::Damaged { path: path.into(), reason: reason.to_string() };
        let tensors = SafeTensors::deserialize(&file).map_err(|error| damaged(&error))?;
        let tensor = |name| tensors.tensor(name).map_err(|error| damaged(&error));
        let (maps, present) = (tensor(MAPS)?, tensor(PRESENT)?);
        let shape = shape_of(&maps).ok_or_else(|| damaged(&"the maps are of no known kind"))?;
        if present.data().len() != shape.rows {
            return Err(damaged(&"rows are missing"));
        }
        let present = present.data().iter().map(|&flag| flag != 0).collect();
        let first = maps.data().as_ptr() as usize - file.as_ptr() as usize;
        Ok(StoredMaps { path: path.into(), first, shape, present, file })
    }

    /// What it has room for.
    pub fn shape(&self) -> MapShape {
        self.shape
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a row was written.
    pub fn has(&self, row: usize) -> bool {
        self.present.get(row).copied().unwrap_or(false)
    }

    /// The maps of `rows`, (N, C, H, W) in f32 on the CPU.
    ///
    /// # Errors
    /// Those of tensor operations.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn maps(&self, rows: &[usize]) -> candle_core::Result<Tensor> {
        let (channels, height, width) = self.shape.map;
        let mut values = vec![0.0; rows.len() * self.shape.values()];
        self.write_maps(rows, &mut values);
        Tensor::from_vec(values, (rows.len(), channels, height, width), &Device::Cpu)
    }

    /// The values of [`maps`](StoredMaps::maps), written to `to`, which has room for them.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn write_maps(&self, rows: &[usize], to: &mut [f32]) {
        for (&row, map) in rows.iter().zip(to.chunks_exact_mut(self.shape.values())) {
            assert!(row < self.shape.rows);
            let row_bytes = self.shape.row_bytes();
            let bytes = &self.file[self.first + row * row_bytes..][..row_bytes];
            match self.shape.precision {
                Precision::F32 => widen(bytes, map, f32::from_le_bytes),
                Precision::Bf16 => widen(bytes, map, |bytes| bf16::from_le_bytes(bytes).to_f32()),
                Precision::F16 => widen(bytes, map, |bytes| f16::from_le_bytes(bytes).to_f32()),
            }
        }
    }
}

fn widen<const N: usize>(bytes: &[u8], to: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, &bytes)| *to = value(bytes));
}

fn shape_of(maps: &TensorView<'_>) -> Option<MapShape> {
    let &[rows, channels, height, width] = maps.shape() else { return None };
    let precision = match maps.dtype() {
        Dtype::F32 => Precision::F32,
        Dtype::BF16 => Precision::Bf16,
        Dtype::F16 => Precision::F16,
        _ => return None,
    };
    Some(MapShape { rows, map: (channels, height, width), precision })
}
