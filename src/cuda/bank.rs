//! `DeviceBank`: the images of a data set, or those that count for a call, on a device, in groups of four: all of them where
//! they fit, else a tile at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::Stream;
use super::device::Device;
use super::layout::{Images, PixelUnits};
use super::memory::Memory;
use super::sources::PixelKind;
use super::upload::{GROUP_LEN, Upload};
use crate::bank::{Bank, PixelRange, Pixels};
use crate::error::{Error, Result};
use crate::query::MAX_Z;

/// Shards of a data set: enough of them to keep a large GPU busy with a few queries.
const TARGET_SHARDS: usize = 128;

/// Most shards per step: they are the second dimension of a grid.
const MAX_SHARDS_PER_STEP: usize = 65_535;

/// The images of a data set on a device, or some of them.
pub(super) struct DeviceBank {
    pub(super) device: Arc<Device>,
    pub(super) pixels: PixelKind,
    /// `[images, channels, height, width]`
    pub(super) shape: [usize; 4],
    /// Where the pixels lie, in the units of the images.
    pub(super) range: PixelRange,
    /// Images per shard. It depends on the data alone, as the cut into shards decides the bits of the result.
    shard_len: usize,
    /// Shards per tile: those that fit on the device at once.
    tile_shards: usize,
    /// Which images these are, unless they are the whole data set.
    chosen: Option<Chosen>,
    resident: Mutex<Option<Tile>>,
}

/// Some images of a data set, for one call.
struct Chosen {
    /// The data set.
    whole: Arc<DeviceBank>,
    /// The indices of the images in it, in increasing order.
    images: Vec<u32>,
}

/// Consecutive shards that lie on the device together.
struct Tile {
    memory: Memory,
    shards: Range<usize>,
}

/// The images of a step, which stay on the device while this lives.
pub(super) struct ResidentImages<'a> {
    pub(super) images: Images,
    _tile: MutexGuard<'a, Option<Tile>>,
}

impl DeviceBank {
    /// Plans how the images of `bank` lie on `device`; they are copied when first used.
    pub(super) fn new(device: Arc<Device>, bank: &Bank<'_>) -> Result<Self> {
        let [channels, height, width] = bank.image_shape();
        check_size("images of the data set", bank.len())?;
        check_size("values of an image", bank.image_len())?;
        let pixels = match bank.pixels() {
            Pixels::U8(_) => PixelKind::U8,
            Pixels::F32(_) => PixelKind::F32,
        };
        Self::planned(device, pixels, [bank.len(), channels, height, width], bank.range(), None)
    }

    /// The chosen `images` of `whole` for one call, whose images on the host are `bank`. Those that lie on the device are
    /// gathered there, others copied; results are those of a data set of these images alone.
    pub(super) fn of_chosen(whole: &Arc<Self>, bank: &Bank<'_>, stream: &Stream, images: &[u32]) -> Result<Self> {
        // They may have been checked against another data set; the kernels would read whatever lies behind this one.
        if let Some(&index) = images.iter().find(|&&index| index as usize >= whole.len()) {
            let expected = format!("0 to {}", whole.len() - 1);
            return Err(Error::ImageIndex { what: "images", index: index as usize, expected });
        }
        if whole.is_resident() {
            // The whole data set gets memory first.
            drop(whole.on_device(bank, stream, &(0..1))?);
        }
        let [_, channels, height, width] = whole.shape;
        let chosen = Chosen { whole: Arc::clone(whole), images: images.to_vec() };
        let shape = [images.len(), channels, height, width];
        Self::planned(Arc::clone(&whole.device), whole.pixels, shape, whole.range, Some(chosen))
    }

    fn planned(
        device: Arc<Device>,
        pixels: PixelKind,
        shape: [usize; 4],
        range: PixelRange,
        chosen: Option<Chosen>,
    ) -> Result<Self> {
        let (images, image_len) = (shape[0], shape[1..].iter().product::<usize>());
        let shard_len = shard_len(images);
        let shard_bytes = shard_len * image_len * pixels.bytes();
        let free = device.context.free_memory()?;
        let shards = images.div_ceil(shard_len);
        // The rest of the memory is for the passes themselves and for other programs.
        let all_fit = shards * shard_bytes <= free / 10 * 7;
        let tile_shards = if all_fit { shards } else { (free / 4 / shard_bytes).max(1) };
        Ok(Self { device, pixels, shape, range, shard_len, tile_shards, chosen, resident: Mutex::new(None) })
    }

    /// Whether all images stay on the device; otherwise they are copied again for every pass.
    pub(super) fn is_resident(&self) -> bool {
        self.tile_shards >= self.shards()
    }

    /// Number of images, flips not counted; those that are not among the chosen ones neither.
    pub(super) fn len(&self) -> usize {
        self.shape[0]
    }

    pub(super) fn shards(&self) -> usize {
        self.len().div_ceil(self.shard_len)
    }

    pub(super) fn image_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Pixels of an image, channels not counted.
    pub(super) fn plane(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    pub(super) fn channels(&self) -> usize {
        self.shape[1]
    }

    pub(super) fn width(&self) -> usize {
        self.shape[3]
    }

    /// How pixels of z become centred stored pixels. Bytes are centred about 128, as in the kernels; floats lie centred on
    /// the device.
    pub(super) fn units(&self) -> PixelUnits {
        match self.pixels {
            PixelKind::U8 => PixelUnits { unit: 127.5, shift: -0.5, max_z: MAX_Z },
            PixelKind::F32 => PixelUnits { unit: 1.0, shift: -self.range.centre, max_z: MAX_Z },
        }
    }

    /// How far the centre of pixels on the device lies above that of pixels on the host.
    pub(super) fn shift_of_centre(&self) -> f64 {
        match self.pixels {
            PixelKind::U8 => 128.0 - 127.5,
            PixelKind::F32 => 0.0,
        }
    }

    /// Largest magnitude of a centred stored pixel.
    pub(super) fn stored_max_abs(&self) -> f64 {
        match self.pixels {
            PixelKind::U8 => 128.0,
            PixelKind::F32 => self.range.reach.max(f64::MIN_POSITIVE),
        }
    }

    /// Cuts `shards` into steps: consecutive shards of one tile, with at most `max_images` images or one shard.
    pub(super) fn steps(&self, shards: Range<usize>, max_images: usize) -> Vec<Range<usize>> {
        let max_shards = (max_images / self.shard_len).clamp(1, MAX_SHARDS_PER_STEP);
        let mut steps = Vec::new();
        let mut next = shards.start;
        while next < shards.end {
            let tile_end = (next / self.tile_shards + 1) * self.tile_shards;
            let end = shards.end.min(next + max_shards).min(tile_end);
            steps.push(next..end);
            next = end;
        }
        steps
    }

    /// The images of a step as kernels see them; their tile is copied from `bank` if it is not on the device.
    pub(super) fn on_device(
        &self,
        bank: &Bank<'_>,
        stream: &Stream,
        step: &Range<usize>,
    ) -> Result<ResidentImages<'_>> {
        let mut resident = self.resident.lock().unwrap_or_else(PoisonError::into_inner);
        let start = step.start / self.tile_shards * self.tile_shards;
        let tile = start..self.shards().min(start + self.tile_shards);
        if resident.as_ref().is_none_or(|resident| resident.shards != tile) {
            // The memory of the previous tile is freed before the next is allocated.
            *resident = None;
            *resident = Some(self.upload(bank, stream, tile.clone())?);
        }
        let base = resident.as_ref().map_or(0, |tile| tile.memory.address());
        let first = step.start * self.shard_len;
        let offset = (first - tile.start * self.shard_len) * self.image_len() * self.pixels.bytes();
        let [_, channels, height, width] = self.shape;
        let images = Images {
            pixels: base + offset as u64,
            channels: channels as i32,
            height: height as i32,
            width: width as i32,
            first: first as i32,
            count: (self.len().min(step.end * self.shard_len) - first) as i32,
            shard_len: self.shard_len as i32,
            first_shard: step.start as i32,
            shards: self.shards() as i32,
        };
        Ok(ResidentImages { images, _tile: resident })
    }

    fn upload(&self, bank: &Bank<'_>, stream: &Stream, shards: Range<usize>) -> Result<Tile> {
        let positions = shards.start * self.shard_len..self.len().min(shards.end * self.shard_len);
        let upload = Upload {
            device: &self.device,
            stream,
            pixels: self.pixels,
            image_len: self.image_len(),
            range: self.range,
            chosen: self.chosen.as_ref().map(|chosen| chosen.images.as_slice()),
        };
        let memory = match &self.chosen {
            Some(Chosen { whole, .. }) if whole.is_resident() => {
                let whole = whole.on_device(bank, stream, &(0..whole.shards()))?;
                upload.gathered(whole.images.pixels, positions)?
            }
            Some(_) | None => upload.copied(bank, positions)?,
        };
        Ok(Tile { memory, shards })
    }

    /// Refuses another bank than the one this was made from.
    pub(super) fn check_same(&self, bank: &Bank<'_>) -> Result<()> {
        let [channels, height, width] = bank.image_shape();
        let found = [bank.len(), channels, height, width];
        if found == self.shape {
            return Ok(());
        }
        let expected = format!("{:?}, as on the device", self.shape);
        Err(Error::Shape { what: "the data set", found: found.to_vec(), expected })
    }
}

/// Images per shard: about `TARGET_SHARDS` shards, long enough to amortise their start, short enough for float32 sums.
fn shard_len(images: usize) -> usize {
    images.div_ceil(TARGET_SHARDS).clamp(64, 4096).next_multiple_of(GROUP_LEN)
}

/// Kernels count in 32 bits, of which two serve as sign and flag.
fn check_size(what: &str, count: usize) -> Result<()> {
    const LIMIT: usize = 1 << 30;
    if count < LIMIT {
        return Ok(());
    }
    Err(Error::CudaUnavailable { reason: format!("there are {count} {what}, the kernels count up to {LIMIT}") })
}
