//! `Upload`: how images get to the device, in groups of four: from the host, or gathered from a data set that lies there.

use std::borrow::Cow;
use std::ops::Range;

use super::context::Stream;
use super::device::Device;
use super::layout::{Address, kernel_args};
use super::memory::{Memory, Plain};
use super::module::{Grid, launch};
use super::sources::{KernelSource, PixelKind};
use crate::bank::{Bank, PixelRange, Pixels};
use crate::error::{Error, Result};

/// Most bytes copied to the device at once.
const UPLOAD_BYTES: usize = 64 << 20;

/// Images per group: `[group][channel][row][column][image]`. Zeros fill up the last group.
pub(super) const GROUP_LEN: usize = 4;

/// Brings images to the device.
pub(super) struct Upload<'a> {
    pub(super) device: &'a Device,
    pub(super) stream: &'a Stream,
    pub(super) pixels: PixelKind,
    /// Values of an image.
    pub(super) image_len: usize,
    /// Where the pixels lie, in the units of the images.
    pub(super) range: PixelRange,
    /// The indices of the images in the data set, unless they are all of it.
    pub(super) chosen: Option<&'a [u32]>,
}

impl Upload<'_> {
    /// The images at these positions, from the images of the data set on the host.
    pub(super) fn copied(&self, bank: &Bank<'_>, positions: Range<usize>) -> Result<Memory> {
        match bank.pixels() {
            Pixels::U8(pixels) => self.copied_pixels(bank, pixels, positions),
            Pixels::F32(pixels) => self.copied_pixels(bank, pixels, positions),
        }
    }

    /// The images at these positions, all of them chosen, from the whole data set at an address of the device.
    pub(super) fn gathered(&self, data_set: Address, positions: Range<usize>) -> Result<Memory> {
        let (count, groups) = (positions.len() as i32, positions.len().div_ceil(GROUP_LEN));
        let memory = self.room_for(positions.len())?;
        let indices = self.chosen.map_or(&[][..], |chosen| &chosen[positions]);
        let indices = Memory::copy_of(self.stream, indices, "the indices of images")?;
        let kernel = self.device.kernel(KernelSource::Posterior, self.pixels, "gather")?;
        let image_len = self.image_len as i32;
        let args: &[_] = kernel_args![&data_set, indices.address_ref(), memory.address_ref(), &count, &image_len];
        // SAFETY: the indices are those of images of the data set; the memory has room for `count` images, up to whole groups.
        unsafe { launch(&kernel, Grid::over(groups * self.image_len), self.stream, args)? };
        Ok(memory)
    }

    /// Memory for so many images, up to whole groups.
    fn room_for(&self, images: usize) -> Result<Memory> {
        let bytes = images.next_multiple_of(GROUP_LEN) * self.image_len * self.pixels.bytes();
        match self.chosen {
            // Chosen images serve one call, on its stream.
            Some(_) => Memory::new(self.stream, bytes, "the chosen images"),
            None => Memory::persistent(self.stream, bytes, "the images"),
        }
    }

    fn copied_pixels<P: Plain>(&self, bank: &Bank<'_>, pixels: &[P], positions: Range<usize>) -> Result<Memory> {
        let image_bytes = self.image_len * size_of::<P>();
        let padded = positions.len().next_multiple_of(GROUP_LEN);
        let memory = self.room_for(positions.len())?;
        let chunk = (UPLOAD_BYTES / image_bytes / GROUP_LEN * GROUP_LEN).clamp(GROUP_LEN, padded);
        let staging = Memory::new(self.stream, chunk * image_bytes, "copying the images")?;
        let changed = Memory::zeros(self.stream, 4, "a mark of changed images")?;
        let kernel = self.device.kernel(KernelSource::Posterior, self.pixels, "interleave")?;
        for first in positions.clone().step_by(chunk) {
            let last = positions.end.min(first + chunk);
            staging.write(&self.pixels_of(pixels, first..last), "the images")?;
            let to = memory.address() + ((first - positions.start) * image_bytes) as u64;
            let (count, image_len) = ((last - first) as i32, self.image_len as i32);
            let (centre, reach) = (self.range.centre as f32, self.range.reach as f32);
            let grid = Grid::over((last - first).div_ceil(GROUP_LEN) * self.image_len);
            let (from, changed) = (staging.address_ref(), changed.address_ref());
            let args: &[_] = kernel_args![from, &to, &count, &image_len, &centre, &reach, changed];
            // SAFETY: both arrays hold `count` images, padded to whole groups.
            unsafe { launch(&kernel, grid, self.stream, args)? };
        }
        // Other streams may use the images of the whole data set too.
        self.stream.synchronize(&"copying the images to the device")?;
        let mut mark = [0_u32];
        changed.read(&mut mark, "a mark of changed images")?;
        if mark == [0] { Ok(memory) } else { Err(self.changed_image(bank, positions)) }
    }

    /// The pixels of the images at these positions, one image after the other; `pixels` are those of the data set.
    fn pixels_of<'p, P: Plain>(&self, pixels: &'p [P], positions: Range<usize>) -> Cow<'p, [P]> {
        let len = self.image_len;
        match self.chosen {
            None => Cow::Borrowed(&pixels[positions.start * len..positions.end * len]),
            Some(chosen) => {
                let image = |&index: &u32| &pixels[index as usize * len..(index as usize + 1) * len];
                Cow::Owned(chosen[positions].iter().flat_map(image).copied().collect())
            }
        }
    }

    /// The error that an image at one of these positions has changed since the data set was checked: bounds on the sums of
    /// its pixels would not hold.
    fn changed_image(&self, bank: &Bank<'_>, positions: Range<usize>) -> Error {
        let PixelRange { centre, reach } = self.range;
        let is_unchanged = |value: f32| (f64::from(value) - centre).abs() <= reach;
        let pixels = match bank.pixels() {
            Pixels::U8(_) => Cow::Borrowed(&[][..]),
            Pixels::F32(pixels) => self.pixels_of(pixels, positions.clone()),
        };
        // It may have changed back.
        let at = pixels.iter().position(|&value| !is_unchanged(value)).unwrap_or(0);
        let value = pixels.get(at).map_or(f64::NAN, |&value| f64::from(value));
        let position = positions.start + at / self.image_len;
        let index = self.chosen.map_or(position, |chosen| chosen[position] as usize);
        Error::ImageChanged { index, value, least: centre - reach, most: centre + reach }
    }
}
