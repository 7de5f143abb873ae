//! `DeviceWindows`: the windows of a composite as the kernels need them.

use std::sync::Arc;

use super::arguments::{Address, MaskViews, Masks, Shapes, Square};
use super::device::Device;
use super::driver::{Memory, Stream};
use crate::error::Result;
use crate::runs::Runs;
use crate::windows::{Kind, Windows};

/// The windows of a composite on a device.
pub struct DeviceWindows {
    pub(super) kind: DeviceKind,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) count: usize,
    /// Columns of the grid that mirroring reverses; 0 where a mirrored window keeps its number.
    pub(super) mirror_columns: usize,
    /// Pixels of an average window.
    pub(super) pixels: usize,
    pub(super) shapes: Shapes,
    /// How many windows hold each pixel.
    cover: Memory,
    /// What `kind` and `shapes` refer to.
    _lists: Vec<Memory>,
}

/// What the windows are.
#[derive(Clone, Copy)]
pub(super) enum DeviceKind {
    Full,
    Square(Square),
    Masks(MaskViews),
}

impl DeviceWindows {
    /// Copies what the kernels need to the device.
    pub fn new(device: &Arc<Device>, windows: &Windows) -> Result<Self> {
        let stream = Stream::default_of(&device.context);
        let mut lists = Vec::new();
        let (rows, columns) = windows.grid();
        let rectangle = |rows: usize, columns: usize, grid: usize| Shapes {
            starts: 0,
            levels: 0,
            plain: 0,
            mirrored: 0,
            rows: rows as i32,
            columns: columns as i32,
            grid: grid as i32,
        };
        let (kind, shapes) = match windows.kind() {
            Kind::Full => (DeviceKind::Full, rectangle(windows.height(), windows.width(), 1)),
            Kind::Square { side } => {
                let square = Square { side: *side as i32, rows: rows as i32, columns: columns as i32 };
                (DeviceKind::Square(square), rectangle(*side, *side, columns))
            }
            Kind::Masks(runs) => {
                let plane = windows.height() * windows.width();
                let mirrored = runs.mirrored(windows.width());
                let mut lists = Lists { stream: &stream, kept: &mut lists };
                let views = MaskViews { plain: lists.masks(runs, plane)?, mirrored: lists.masks(&mirrored, plane)? };
                (DeviceKind::Masks(views), lists.shapes(runs, &mirrored)?)
            }
        };
        let cover = Lists { stream: &stream, kept: &mut lists }.memory(&windows.cover(), "the cover")?;
        let pixels = (0..windows.count()).map(|k| windows.pixels(k)).sum::<usize>() / windows.count();
        stream.synchronize(&"copying the windows to the device")?;
        Ok(Self {
            kind,
            height: windows.height(),
            width: windows.width(),
            count: windows.count(),
            mirror_columns: if matches!(kind, DeviceKind::Square(_)) { columns } else { 0 },
            pixels: pixels.max(1),
            shapes,
            cover,
            _lists: lists,
        })
    }

    /// Where the cover counts are.
    pub(super) fn cover(&self) -> &Memory {
        &self.cover
    }
}

/// Copies lists to the device and keeps them.
struct Lists<'a> {
    stream: &'a Stream,
    kept: &'a mut Vec<Memory>,
}

impl Lists<'_> {
    fn memory<T: super::driver::Plain>(&self, values: &[T], what: &str) -> Result<Memory> {
        let memory = Memory::lasting(self.stream, size_of_val(values), what)?;
        memory.write(values, what)?;
        Ok(memory)
    }

    fn list(&mut self, values: &[i32]) -> Result<Address> {
        let memory = self.memory(values, "the masks")?;
        let address = memory.address();
        self.kept.push(memory);
        Ok(address)
    }

    /// The pieces by level and mask, and the masks by level and pixel.
    fn masks(&mut self, runs: &Runs, plane: usize) -> Result<Masks> {
        let (by_mask, by_pixel) = (Grouped::by_mask(runs), Grouped::by_pixel(runs, plane));
        Ok(Masks {
            starts: self.list(&by_mask.starts)?,
            pieces: self.list(&by_mask.members)?,
            owners: self.list(&by_pixel.starts)?,
            members: self.list(&by_pixel.members)?,
            levels: runs.levels() as i32,
            count: runs.count() as i32,
        })
    }

    /// The pieces by mask alone.
    fn shapes(&mut self, runs: &Runs, mirrored: &Runs) -> Result<Shapes> {
        let mut starts = vec![0];
        let (mut levels, mut plain, mut flipped) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..runs.count() {
            for (piece, twin) in runs.pieces(k).iter().zip(mirrored.pieces(k)) {
                levels.push(piece.level as i32);
                plain.push(piece.at as i32);
                flipped.push(twin.at as i32);
            }
            starts.push(levels.len() as i32);
        }
        Ok(Shapes {
            starts: self.list(&starts)?,
            levels: self.list(&levels)?,
            plain: self.list(&plain)?,
            mirrored: self.list(&flipped)?,
            rows: 0,
            columns: 0,
            grid: 0,
        })
    }
}

/// Numbers in groups: group g of level l is `members[starts[l * (groups + 1) + g]..starts[l * (groups + 1) + g + 1]]`.
#[derive(Debug, PartialEq, Eq)]
struct Grouped {
    starts: Vec<i32>,
    members: Vec<i32>,
}

impl Grouped {
    fn by_mask(runs: &Runs) -> Self {
        Self::new(runs, runs.count(), |k, _| k, |_, at| at)
    }

    fn by_pixel(runs: &Runs, plane: usize) -> Self {
        Self::new(runs, plane, |_, at| at as usize, |k, _| k as u32)
    }

    /// Every piece, given as mask and first pixel, belongs to a group and is a member of it.
    fn new(
        runs: &Runs,
        groups: usize,
        group: impl Fn(usize, u32) -> usize,
        member: impl Fn(usize, u32) -> u32,
    ) -> Self {
        let mut lists = vec![Vec::new(); runs.levels() * groups];
        for k in 0..runs.count() {
            for piece in runs.pieces(k) {
                lists[piece.level as usize * groups + group(k, piece.at)].push(member(k, piece.at) as i32);
            }
        }
        let mut grouped = Self { starts: Vec::new(), members: Vec::new() };
        for level in lists.chunks(groups) {
            grouped.starts.push(grouped.members.len() as i32);
            for list in level {
                grouped.members.extend(list);
                grouped.starts.push(grouped.members.len() as i32);
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
        let runs = Runs::new(masks.view()).unwrap();
        let by_mask = Grouped { starts: vec![0, 1, 2, 2, 3, 3], members: vec![2, 3, 0] };
        assert_eq!(Grouped::by_mask(&runs), by_mask);
        let by_pixel = Grouped { starts: vec![0, 0, 0, 1, 2, 2, 3, 3, 3, 3], members: vec![0, 1, 0] };
        assert_eq!(Grouped::by_pixel(&runs, 4), by_pixel);
    }
}
