//! Photos as people name them: files, folders, patterns, and a list on stdin.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use candle_finetune::dataset;
use glob::{MatchOptions, glob_with};

/// Every photo that `named` stands for, in that order.
///
/// A folder is searched through, and what is passed over there is told; `-` takes a path from each line of stdin, or where there are zero bytes
/// what ends in one; what is no file and holds `*`, `?` or `[` is a pattern.
/// Other paths are taken as they are, whether there is a file or not.
pub fn listed(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut photos = Vec::new();
    for name in named {
        match name.to_str() {
            Some("-") => photos.extend(on_stdin()?),
            Some(pattern) if pattern.contains(['*', '?', '[']) && !name.exists() => photos.extend(matching(pattern)?),
            _ => photos.extend(below(name)?),
        }
    }
    Ok(photos)
}

fn on_stdin() -> anyhow::Result<Vec<PathBuf>> {
    let paths = paths(std::io::stdin().lock())?;
    if paths.is_empty() {
        bail!("stdin: names no photos");
    }
    Ok(paths)
}

fn paths(mut input: impl Read) -> anyhow::Result<Vec<PathBuf>> {
    let mut text = Vec::new();
    input.read_to_end(&mut text).map_err(|error| anyhow!("stdin: {error}"))?;
    // No path holds a zero byte: where there are some, as `find -print0` writes, line breaks are parts of names.
    let zero = text.contains(&0);
    let (end, return_before_it) = if zero { (0, &b""[..]) } else { (b'\n', &b"\r"[..]) };
    let paths = text.split(|&byte| byte == end).map(|path| path.strip_suffix(return_before_it).unwrap_or(path));
    Ok(paths.filter(|path| !path.is_empty()).map(|path| path_of(path.to_vec())).collect())
}

/// A path need not be text.
#[cfg(unix)]
fn path_of(line: Vec<u8>) -> PathBuf {
    <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(line).into()
}

#[cfg(not(unix))]
fn path_of(line: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&line).into_owned().into()
}

fn matching(pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let found = glob_with(pattern, options).map_err(|error| anyhow!("`{pattern}`: {error}"))?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() && !pattern.contains(['*', '?']) {
        return Ok(vec![pattern.into()]); // `photo[1].jpg` is a name more often than a pattern
    }
    if found.is_empty() {
        bail!("`{pattern}` matches nothing");
    }
    found.iter().map(|path| below(path)).collect::<anyhow::Result<Vec<_>>>().map(|photos| photos.concat())
}

fn below(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_dir() {
        let found = dataset::images_below(path).map_err(candle_finetune::Error::from)?;
        found.findings.iter().for_each(|finding| say!("note: {finding}"));
        return Ok(found.images);
    }
    Ok(vec![path.to_path_buf()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_lines_or_end_in_zero_bytes() {
        let listed = |text: &str| paths(text.as_bytes()).unwrap();
        assert_eq!(listed("a.jpg\n\nb c.jpg\r\nd.jpg"), ["a.jpg", "b c.jpg", "d.jpg"].map(PathBuf::from));
        assert_eq!(listed("a\nb.jpg\0c\r\0"), ["a\nb.jpg", "c\r"].map(PathBuf::from));
        assert!(listed("").is_empty());
    }
}
