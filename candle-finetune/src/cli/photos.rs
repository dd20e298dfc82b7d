//! Photos as people name them: files, folders, patterns, and a list on stdin.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use candle_finetune::dataset;

/// Every photo that `named` stands for, in that order.
///
/// A folder is searched through, `-` takes a path from each line of stdin, and what is no file and holds `*`, `?` or `[` is a pattern.
/// Other paths are taken as they are, whether there is a file or not.
pub fn listed(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut photos = Vec::new();
    for name in named {
        match name.to_str() {
            Some("-") => photos.extend(lines(std::io::stdin().lock())?),
            Some(pattern) if pattern.contains(['*', '?', '[']) && !name.exists() => photos.extend(matching(pattern)?),
            _ => photos.extend(below(name)?),
        }
    }
    Ok(photos)
}

fn lines(input: impl BufRead) -> anyhow::Result<Vec<PathBuf>> {
    let lines = input.lines().collect::<Result<Vec<_>, _>>().map_err(|error| anyhow!("stdin: {error}"))?;
    Ok(lines.into_iter().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

fn matching(pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    let found = glob::glob(pattern).map_err(|error| anyhow!("`{pattern}`: {error}"))?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        bail!("`{pattern}` matches nothing");
    }
    found.iter().map(|path| below(path)).collect::<anyhow::Result<Vec<_>>>().map(|photos| photos.concat())
}

fn below(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_dir() {
        return Ok(dataset::images_below(path).map_err(candle_finetune::Error::from)?);
    }
    Ok(vec![path.to_path_buf()])
}
