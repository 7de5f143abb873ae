//! `DeviceBank`: the images of a data set on a GPU, in fours; all of them and for good where they fit, else a tile at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arguments::{Images, Units, arguments};
use super::device::{Device, PixelKind, Source};
use super::driver::{Grid, Memory, Plain, Stream, launch};
use crate::bank::{Bank, Pixels};
use crate::composite::MAX_Z;
use crate::error::{Error, Result};

/// Most bytes copied to the device at once.
const CHUNK: usize = 64 << 20;

/// Shards of a data set: enough of them to keep a large GPU busy with a few queries.
const SHARDS: usize = 128;

/// Images lie in fours, and the last four is filled up with zeros.
const GROUP: usize = 4;

/// Some shards that stay on the device while this lives.
pub(super) struct OnDevice<'a> {
    pub(super) images: Images,
    _tile: MutexGuard<'a, Option<Tile>>,
}

/// The images of a data set on a device.
pub struct DeviceBank {
    pub(super) device: Arc<Device>,
    pub(super) pixels: PixelKind,
    pub(super) shape: [usize; 4],
    /// Largest magnitude of a pixel in the units of the images.
    pub(super) reach: f64,
    /// Images a shard. It depends on the data alone, as the cut into shards decides the bits of the result.
    pub(super) shard: usize,
    /// Shards that fit on the device at once.
    tile: usize,
    resident: Mutex<Option<Tile>>,
}

/// The shards that lie on the device.
struct Tile {
    memory: Memory,
    shards: Range<usize>,
}

impl DeviceBank {
    /// Makes room for the images of `bank` on `device`; they are copied when first used.
    pub fn new(device: &Arc<Device>, bank: &Bank<'_>) -> Result<Self> {
        let [channels, height, width] = bank.image_shape();
        check_size("images of the data set", bank.len())?;
        check_size("values of an image", bank.image_len())?;
        let shard = shard_len(bank.len());
        let pixels = match bank.pixels() {
            Pixels::U8(_) => PixelKind::U8,
            Pixels::F32(_) => PixelKind::F32,
        };
        let bytes = shard * bank.image_len() * pixels.bytes();
        let free = device.context.free_memory()?;
        let shards = bank.len().div_ceil(shard);
        // What is left over is for the work itself and for other programs.
        let tile = if shards * bytes <= free / 10 * 7 { shards } else { (free / 4 / bytes).max(1) };
        Ok(Self {
            device: Arc::clone(device),
            pixels,
            shape: [bank.len(), channels, height, width],
            reach: bank.reach(),
            shard,
            tile,
            resident: Mutex::new(None),
        })
    }

    /// Whether all images stay on the device; otherwise they are copied again for every pass.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.tile >= self.shards()
    }

    /// Number of images, flips not counted.
    pub(super) fn len(&self) -> usize {
        self.shape[0]
    }

    pub(super) fn shards(&self) -> usize {
        self.len().div_ceil(self.shard)
    }

    pub(super) fn image_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    pub(super) fn plane(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    /// How z becomes a centred stored pixel, and back. Bytes are centred about 128, as the kernels do.
    pub(super) fn units(&self) -> Units {
        match self.pixels {
            PixelKind::U8 => Units { unit: 127.5, shift: -0.5, largest_z: MAX_Z },
            PixelKind::F32 => Units { unit: 1.0, shift: 0.0, largest_z: MAX_Z },
        }
    }

    /// Largest magnitude of a centred stored pixel.
    pub(super) fn stored_reach(&self) -> f64 {
        match self.pixels {
            PixelKind::U8 => 128.0,
            PixelKind::F32 => self.reach.max(f64::MIN_POSITIVE),
        }
    }

    /// Cuts `shards` into runs of shards that lie on the device at once and hold at most `images` images, where a shard
    /// holds no more.
    pub(super) fn steps(&self, shards: Range<usize>, images: usize) -> Vec<Range<usize>> {
        let most = (images / self.shard).max(1);
        let mut steps = Vec::new();
        let mut next = shards.start;
        while next < shards.end {
            let tile = next / self.tile * self.tile;
            let end = shards.end.min(next + most).min(tile + self.tile);
            steps.push(next..end);
            next = end;
        }
        steps
    }

    /// The shards of one step as kernels see them, copied from `bank` if they are not on the device.
    pub(super) fn on_device(&self, bank: &Bank<'_>, stream: &Stream, step: &Range<usize>) -> Result<OnDevice<'_>> {
        let mut resident = self.resident.lock().unwrap_or_else(PoisonError::into_inner);
        let start = step.start / self.tile * self.tile;
        let tile = start..self.shards().min(start + self.tile);
        if resident.as_ref().is_none_or(|resident| resident.shards != tile) {
            // The former tile, if there is one, is given back first.
            *resident = None;
            *resident = Some(self.upload(bank, stream, tile.clone())?);
        }
        let base = resident.as_ref().map_or(0, |tile| tile.memory.address());
        let first = step.start * self.shard;
        let offset = (first - tile.start * self.shard) * self.image_len() * self.pixels.bytes();
        let [_, channels, height, width] = self.shape;
        let images = Images {
            pixels: base + offset as u64,
            channels: channels as i32,
            height: height as i32,
            width: width as i32,
            first: first as i32,
            count: (self.len().min(step.end * self.shard) - first) as i32,
            shard: self.shard as i32,
            first_shard: step.start as i32,
            shards: self.shards() as i32,
        };
        Ok(OnDevice { images, _tile: resident })
    }

    fn upload(&self, bank: &Bank<'_>, stream: &Stream, shards: Range<usize>) -> Result<Tile> {
        let images = shards.start * self.shard..self.len().min(shards.end * self.shard);
        match bank.pixels() {
            Pixels::U8(pixels) => self.upload_pixels(pixels, stream, images, shards),
            Pixels::F32(pixels) => self.upload_pixels(pixels, stream, images, shards),
        }
    }

    fn upload_pixels<P: Plain>(
        &self,
        pixels: &[P],
        stream: &Stream,
        images: Range<usize>,
        shards: Range<usize>,
    ) -> Result<Tile> {
        let image_bytes = self.image_len() * size_of::<P>();
        let memory = Memory::lasting(stream, images.len().next_multiple_of(GROUP) * image_bytes, "the images")?;
        let chunk = (CHUNK / image_bytes / GROUP * GROUP).clamp(GROUP, images.len().next_multiple_of(GROUP));
        let staging = Memory::new(stream, chunk * image_bytes, "copying the images")?;
        let kernel = self.device.kernel(Source::Posterior, self.pixels, "interleave")?;
        for first in images.clone().step_by(chunk) {
            let last = images.end.min(first + chunk);
            staging.write(&pixels[first * self.image_len()..last * self.image_len()], "the images")?;
            let to = memory.address() + ((first - images.start) * image_bytes) as u64;
            let (count, image_len) = ((last - first) as i32, self.image_len() as i32);
            let fours = (last - first).div_ceil(GROUP) * self.image_len();
            // SAFETY: (1) from and to hold `count` images, filled up to fours.
            unsafe {
                launch(&kernel, Grid::over(fours), stream, arguments![staging.at(), &to, &count, &image_len])?;
            }
        }
        // Other streams may use the images too.
        stream.synchronize(&"copying the images to the device")?;
        Ok(Tile { memory, shards })
    }
}

impl PixelKind {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// Images a shard: about `SHARDS` shards, none so short that starting costs, none so long that float32 sums lose digits.
fn shard_len(images: usize) -> usize {
    images.div_ceil(SHARDS).clamp(64, 4096).next_multiple_of(GROUP)
}

/// Kernels count in 32 bits, with a bit for other uses.
fn check_size(what: &str, count: usize) -> Result<()> {
    const MOST: usize = 1 << 30;
    if count < MOST {
        return Ok(());
    }
    Err(Error::CudaUnavailable { reason: format!("there are {count} {what}, the kernels count up to {MOST}") })
}

/// The bank that a device bank was made of has to be the one it is used with.
pub(super) fn check_same(device: &DeviceBank, bank: &Bank<'_>) -> Result<()> {
    let [n, c, h, w] = device.shape;
    if bank.len() == n && bank.image_shape() == [c, h, w] {
        return Ok(());
    }
    let [channels, height, width] = bank.image_shape();
    Err(Error::Shape {
        what: "the data set",
        found: vec![bank.len(), channels, height, width],
        expected: format!("{:?}, as on the device", device.shape),
    })
}
