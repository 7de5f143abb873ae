//! `DeviceComponents`: the windows of a composite as the kernels need them, and the copies a device holds of them.

use std::sync::{Arc, Mutex, PoisonError};

use super::context::Stream;
use super::device::Device;
use super::layout::{Address, MirroredMasks, SquareWindows, WindowShapes};
use super::mask_tables::UploadedLists;
use super::memory::Memory;
use super::rounding::Rounding;
use crate::components::{Components, Kind, WeakComponents};
use crate::error::Result;

/// The windows of a composite on a device.
pub(super) struct DeviceComponents {
    pub(super) kind: DeviceKind,
    /// Width of the images.
    pub(super) width: usize,
    /// Number of windows.
    pub(super) count: usize,
    /// Columns of the grid that mirroring reverses; 0 where a mirrored window keeps its number.
    pub(super) mirror_columns: usize,
    /// Pixels of an average window.
    pub(super) mean_pixels: usize,
    /// How energies on the windows round.
    pub(super) rounding: Rounding,
    pub(super) shapes: WindowShapes,
    /// How many windows hold each pixel.
    pub(super) cover: Memory,
    /// The memory that `kind` and `shapes` refer to.
    _lists: UploadedLists,
}

/// What the windows are.
#[derive(Clone, Copy)]
pub(super) enum DeviceKind {
    Full,
    Square(SquareWindows),
    Masks(MirroredMasks),
}

impl DeviceComponents {
    /// Copies what the kernels need to the device, for images of so many channels.
    pub(super) fn new(device: &Device, components: &Components, channels: usize) -> Result<Self> {
        let stream = Stream::default_of(&device.context);
        let mut lists = UploadedLists::new(&stream);
        let (height, width) = (components.height(), components.width());
        let (rows, columns) = components.grid();
        let (kind, shapes, mirror_columns) = match components.kind() {
            Kind::Full => (DeviceKind::Full, rectangles(height, width, 1), 0),
            Kind::Square { side } => {
                let square = SquareWindows { side: *side as i32, rows: rows as i32, columns: columns as i32 };
                (DeviceKind::Square(square), rectangles(*side, *side, columns), columns)
            }
            Kind::Masks(runs) => {
                let (plain, flipped) = (runs, &runs.mirrored(width));
                let plane = height * width;
                let masks = MirroredMasks { plain: lists.masks(plain, plane)?, flipped: lists.masks(flipped, plane)? };
                (DeviceKind::Masks(masks), lists.mask_shapes(plain, flipped)?, 0)
            }
        };
        let cover = lists.upload(&components.cover(), "the cover")?;
        let pixels: usize = (0..components.count()).map(|k| components.pixels(k)).sum();
        stream.synchronize(&"copying the windows to the device")?;
        Ok(Self {
            kind,
            width,
            count: components.count(),
            mirror_columns,
            mean_pixels: (pixels / components.count()).max(1),
            rounding: Rounding::new(components, channels),
            shapes,
            cover,
            _lists: lists,
        })
    }
}

/// The copies that a device holds of components. A copy is made when its original is first used, and freed when others are
/// used after the original is gone.
#[derive(Default)]
pub(super) struct ComponentCopies(Mutex<Vec<(WeakComponents, Arc<DeviceComponents>)>>);

impl ComponentCopies {
    /// The copy of these very components, for images of so many channels.
    pub(super) fn get(
        &self,
        device: &Device,
        components: &Components,
        channels: usize,
    ) -> Result<Arc<DeviceComponents>> {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copies.retain(|(original, _)| original.is_alive());
        if let Some((_, copy)) = copies.iter().find(|(original, _)| original.is(components)) {
            return Ok(Arc::clone(copy));
        }
        let copy = Arc::new(DeviceComponents::new(device, components, channels)?);
        copies.push((components.downgrade(), Arc::clone(&copy)));
        Ok(copy)
    }
}

/// Windows of `rows` x `columns` pixels on a grid.
fn rectangles(rows: usize, columns: usize, grid_columns: usize) -> WindowShapes {
    let null: Address = 0;
    WindowShapes {
        starts: null,
        levels: null,
        plain: null,
        flipped: null,
        rows: rows as i32,
        columns: columns as i32,
        grid_columns: grid_columns as i32,
    }
}
