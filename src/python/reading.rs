//! Images read in parallel: from a ZIP archive of the plain kind, and from files.

use std::path::PathBuf;

use numpy::PyReadwriteArray4;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::Error;
use crate::reading::archive::{Archive, MemberBuffers};
use crate::reading::{decode_files, decode_members};

/// A ZIP archive of the plain kind, open for reading.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct PlainZip {
    archive: Archive,
}

#[pymethods]
impl PlainZip {
    /// The archive in a file; None if it is not a plain one, or cannot be read.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> Option<Self> {
        py.detach(|| Archive::open(&path)).map(|archive| Self { archive })
    }

    /// The names of the members, in the order of the directory.
    fn names(&self) -> Vec<&str> {
        self.archive.names().collect()
    }

    /// The bytes of the directory: names, sizes, places and checksums of all members.
    fn directory<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.archive.directory())
    }

    /// The bytes of a member; None if it has more than `limit`, or is not a plain one.
    fn read<'py>(&self, py: Python<'py>, index: usize, limit: usize) -> Option<Bound<'py, PyBytes>> {
        let mut buffers = MemberBuffers::default();
        let bytes = py.detach(|| self.archive.read(index, limit, &mut buffers))?;
        Some(PyBytes::new(py, bytes))
    }

    /// Decodes members that are plain PNGs into `pixels` `[members, channels, height, width]`, and returns the positions of the
    /// others in `members`.
    fn decode(
        &self,
        py: Python<'_>,
        members: Vec<usize>,
        pixels: PyReadwriteArray4<'_, u8>,
        limit: usize,
    ) -> PyResult<Vec<usize>> {
        decode_into(py, pixels, |shape, pixels| decode_members(&self.archive, &members, shape, limit, pixels))
    }
}

/// Decodes files that are plain PNGs into `pixels` `[files, channels, height, width]`, and returns the positions of the others in
/// `paths`.
#[pyfunction]
pub(super) fn decode_png_files(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    pixels: PyReadwriteArray4<'_, u8>,
    limit: usize,
) -> PyResult<Vec<usize>> {
    decode_into(py, pixels, |shape, pixels| decode_files(&paths, shape, limit, pixels))
}

/// Runs `decode` on the pixels of a contiguous array without the GIL.
fn decode_into(
    py: Python<'_>,
    mut pixels: PyReadwriteArray4<'_, u8>,
    decode: impl FnOnce([usize; 3], &mut [u8]) -> crate::Result<Vec<usize>> + Send,
) -> PyResult<Vec<usize>> {
    let (files, channels, height, width) = pixels.as_array().dim();
    let Ok(slice) = pixels.as_slice_mut() else {
        let found = vec![files, channels, height, width];
        return Err(Error::Shape { what: "pixels", found, expected: "a contiguous array".to_owned() }.into());
    };
    Ok(py.detach(|| decode([channels, height, width], slice))?)
}
