//! Images of many files, read and decoded in parallel.
//!
//! Only the plainest files are read here: 8-bit PNGs of one known size ([`png`]), in folders or as members of a ZIP archive
//! ([`archive`]). Whatever is unusual or damaged is left to the caller, who has slower readers for everything and says what is
//! wrong; a file that is read here has the pixels that those would find.

pub mod archive;
mod buffer;
pub mod png;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::threads;
use archive::{Archive, MemberBuffers};
use buffer::resize;

/// Files that a thread decodes at the least before another takes over: starting on a few costs nothing beside them.
const MIN_FILES: usize = 8;

/// Decodes members of an archive into `pixels` `[members, channels, height, width]`, on all threads.
///
/// Returns the positions in `members` of those that are left to the caller, in order; their pixels are unspecified. No file may
/// have more than `limit` bytes. `shape` is (channels, height, width); pixels of another length are an error.
pub fn decode_members(
    archive: &Archive,
    members: &[usize],
    shape: [usize; 3],
    limit: usize,
    pixels: &mut [u8],
) -> Result<Vec<usize>> {
    decode_all(members.len(), shape, pixels, MemberBuffers::default, |index, buffers| {
        archive.read(members[index], limit, buffers)
    })
}

/// The same for files.
pub fn decode_files<P: AsRef<Path> + Sync>(
    paths: &[P],
    shape: [usize; 3],
    limit: usize,
    pixels: &mut [u8],
) -> Result<Vec<usize>> {
    decode_all(paths.len(), shape, pixels, Vec::new, |index, bytes| read_file(paths[index].as_ref(), limit, bytes))
}

/// Decodes `count` files that `read` reads into the buffers of a thread.
fn decode_all<B>(
    count: usize,
    shape: [usize; 3],
    pixels: &mut [u8],
    buffers: impl Fn() -> B + Sync + Send,
    read: impl Fn(usize, &mut B) -> Option<&[u8]> + Sync,
) -> Result<Vec<usize>> {
    let image_len = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side)).filter(|&len| len > 0);
    let Some(image_len) = image_len.filter(|len| len.checked_mul(count) == Some(pixels.len())) else {
        let expected = format!("one image of shape {shape:?} per file, for {count} files");
        return Err(Error::Shape { what: "pixels", found: vec![pixels.len()], expected });
    };
    let decode = || {
        let images = pixels.par_chunks_exact_mut(image_len).with_min_len(MIN_FILES).enumerate();
        let left = images.map_init(
            || (buffers(), png::Decoder::new(shape)),
            |(buffers, decoder), (index, image)| {
                let decoded = read(index, buffers).and_then(|file| decoder.decode(file, image));
                decoded.is_none().then_some(index)
            },
        );
        left.flatten_iter().collect()
    };
    Ok(threads::pool()?.install(decode))
}

/// The bytes of a file, at most `limit`; none where it is no file, or cannot be read.
fn read_file<'b>(path: &Path, limit: usize, bytes: &'b mut Vec<u8>) -> Option<&'b [u8]> {
    // Opening a named pipe would wait for its other end.
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let len = usize::try_from(metadata.len()).ok().filter(|&len| len <= limit)?;
    resize(bytes, len)?;
    let mut file = File::open(path).ok()?;
    file.read_exact(bytes).ok()?;
    // A file that grows is no plain one.
    (file.read(&mut [0]).ok()? == 0).then_some(bytes)
}
