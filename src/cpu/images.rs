//! `Images`: the pixels of a few images, wherever they lie.

use std::ops::Deref;

/// The most images that are read together.
pub(crate) const MOST: usize = 32;

/// The stored pixels of up to [`MOST`] images, each `[channel][pixel]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Images<'a, P> {
    rows: [&'a [P]; MOST],
    count: usize,
}

impl<'a, P> Images<'a, P> {
    /// Those that lie one after the other, `len` values each.
    pub(crate) fn side_by_side(pixels: &'a [P], len: usize) -> Self {
        pixels.chunks_exact(len).collect()
    }
}

impl<'a, P> FromIterator<&'a [P]> for Images<'a, P> {
    fn from_iter<I: IntoIterator<Item = &'a [P]>>(images: I) -> Self {
        let (mut rows, mut count): ([&'a [P]; MOST], usize) = ([&[]; MOST], 0);
        for (row, image) in rows.iter_mut().zip(images) {
            *row = image;
            count += 1;
        }
        Self { rows, count }
    }
}

impl<'a, P> Deref for Images<'a, P> {
    type Target = [&'a [P]];

    fn deref(&self) -> &Self::Target {
        &self.rows[..self.count]
    }
}
