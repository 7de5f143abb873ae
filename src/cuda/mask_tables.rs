//! Masks as lists on the device: their pieces by level and mask, and the masks by level and pixel.

use super::context::Stream;
use super::layout::{Address, Masks, WindowShapes};
use super::memory::{Memory, Plain};
use crate::error::Result;
use crate::runs::MaskRuns;

/// Lists on the device, which live as long as this.
pub(super) struct UploadedLists {
    stream: Stream,
    lists: Vec<Memory>,
}

impl UploadedLists {
    pub(super) fn new(stream: &Stream) -> Self {
        Self { stream: stream.clone(), lists: Vec::new() }
    }

    /// A copy of values that the caller keeps.
    pub(super) fn upload<T: Plain>(&self, values: &[T], what: &str) -> Result<Memory> {
        let memory = Memory::persistent(&self.stream, size_of_val(values), what)?;
        memory.write(values, what)?;
        Ok(memory)
    }

    /// A copy of a list that this keeps.
    pub(super) fn list(&mut self, values: &[i32]) -> Result<Address> {
        let memory = self.upload(values, "the masks")?;
        let address = memory.address();
        self.lists.push(memory);
        Ok(address)
    }

    /// The pieces of masks on images of `plane` pixels.
    pub(super) fn masks(&mut self, runs: &MaskRuns, plane: usize) -> Result<Masks> {
        let (by_mask, by_pixel) = (Grouped::by_mask(runs), Grouped::by_pixel(runs, plane));
        Ok(Masks {
            piece_starts: self.list(&by_mask.starts)?,
            pieces: self.list(&by_mask.values)?,
            member_starts: self.list(&by_pixel.starts)?,
            members: self.list(&by_pixel.values)?,
            levels: runs.levels() as i32,
            count: runs.count() as i32,
        })
    }

    /// The pieces of masks, mask by mask, and where they lie in the mirror image.
    pub(super) fn mask_shapes(&mut self, plain: &MaskRuns, flipped: &MaskRuns) -> Result<WindowShapes> {
        let mut starts = vec![0];
        let (mut levels, mut plain_pixels, mut flipped_pixels) = (Vec::new(), Vec::new(), Vec::new());
        for mask in 0..plain.count() {
            for (piece, twin) in plain.pieces(mask).iter().zip(flipped.pieces(mask)) {
                levels.push(piece.level as i32);
                plain_pixels.push(piece.at as i32);
                flipped_pixels.push(twin.at as i32);
            }
            starts.push(levels.len() as i32);
        }
        Ok(WindowShapes {
            starts: self.list(&starts)?,
            levels: self.list(&levels)?,
            plain: self.list(&plain_pixels)?,
            flipped: self.list(&flipped_pixels)?,
            rows: 0,
            columns: 0,
            grid_columns: 0,
        })
    }
}

/// Values by level and group: those of group `g` of level `l` are `values[starts[i]..starts[i + 1]]`,
/// `i = l * (groups + 1) + g`.
#[derive(Debug, PartialEq, Eq)]
struct Grouped {
    starts: Vec<i32>,
    values: Vec<i32>,
}

impl Grouped {
    /// First pixels of pieces by level and mask.
    fn by_mask(runs: &MaskRuns) -> Self {
        Self::new(runs, runs.count(), |mask, _| mask, |_, pixel| pixel as i32)
    }

    /// Masks by level and first pixel of a piece.
    fn by_pixel(runs: &MaskRuns, plane: usize) -> Self {
        Self::new(runs, plane, |_, pixel| pixel as usize, |mask, _| mask as i32)
    }

    /// Groups all pieces: `group` and `value` say for a piece's mask and first pixel where it goes and what is stored.
    fn new(
        runs: &MaskRuns,
        groups: usize,
        group: impl Fn(usize, u32) -> usize,
        value: impl Fn(usize, u32) -> i32,
    ) -> Self {
        let mut lists = vec![Vec::new(); runs.levels() * groups];
        for mask in 0..runs.count() {
            for piece in runs.pieces(mask) {
                lists[piece.level as usize * groups + group(mask, piece.at)].push(value(mask, piece.at));
            }
        }
        let mut grouped = Self { starts: Vec::new(), values: Vec::new() };
        for level in lists.chunks(groups) {
            grouped.starts.push(grouped.values.len() as i32);
            for list in level {
                grouped.values.extend(list);
                grouped.starts.push(grouped.values.len() as i32);
            }
        }
        grouped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn pieces_are_grouped_by_level_and_mask_and_by_level_and_pixel() {
        // Two masks on a row of four: the first three pixels (2 + 1), and the last one.
        let mut masks = Array3::from_elem((2, 1, 4), false);
        masks.slice_mut(ndarray::s![0, 0, ..3]).fill(true);
        masks[[1, 0, 3]] = true;
        let runs = MaskRuns::new(masks.view()).unwrap();
        let by_mask = Grouped { starts: vec![0, 1, 2, 2, 3, 3], values: vec![2, 3, 0] };
        assert_eq!(Grouped::by_mask(&runs), by_mask);
        let by_pixel = Grouped { starts: vec![0, 0, 0, 1, 2, 2, 3, 3, 3, 3], values: vec![0, 1, 0] };
        assert_eq!(Grouped::by_pixel(&runs, 4), by_pixel);
    }
}
