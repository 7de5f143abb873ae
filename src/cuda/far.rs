//! `FarPixel`: a value of z far from all data, and what energies are counted from there.
//!
//! Next to such a value the distances of all images are nearly the same, and large: summed with those of other pixels they
//! would take their digits. So energies leave out what they have in common with the image nearest to z there. The images
//! that carry weight are mostly those with that very value, of which nothing is left.

use super::bank::DeviceBank;
use super::context::Stream;
use super::layout::Address;
use super::memory::Memory;
use crate::bank::{Bank, Pixels};
use crate::components::Components;
use crate::error::Result;
use crate::query::Queries;
use crate::regime::FAR_FROM;
use crate::sources::Sources;

/// A value of z far from all data, centred as on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct FarPixel {
    /// Its place in the image, `[channel][row][column]`.
    at: usize,
    z: f64,
    /// The nearest value of an image that counts, or of its mirror image where flips count.
    nearest: f64,
}

/// The far values of a query.
pub(super) fn of_query(
    bank: &Bank<'_>,
    on_device: &DeviceBank,
    queries: &Queries<'_>,
    query: usize,
    flips: bool,
) -> Vec<FarPixel> {
    let (units, far_from) = (on_device.units(), FAR_FROM * on_device.stored_max_abs());
    let centred = queries.image(query).mapv(|z| z * units.unit + units.shift);
    let far = centred.iter().enumerate().filter(|(_, z)| z.abs() > far_from);
    let far: Vec<(usize, f64)> = far.map(|(at, &z)| (at, z)).collect();
    if far.is_empty() {
        return Vec::new();
    }
    let sources = Sources::new(bank, queries.atoms());
    let left_out = queries.atoms().left_out_of(query);
    let counted: Vec<usize> = (0..sources.len)
        .filter(|&position| left_out.binary_search(&(position as u32)).is_err())
        .map(|position| sources.image(position))
        .collect();
    let width = on_device.width();
    let nearest = |(at, z): (usize, f64)| {
        let mirrored = at - at % width + width - 1 - at % width;
        let places = if flips { [at, mirrored] } else { [at, at] };
        // All images lie on the same side.
        let value = |image: usize| places.map(|at| z.signum() * centred_pixel(bank, image * bank.image_len() + at));
        let largest = counted.iter().flat_map(|&image| value(image)).fold(f64::NEG_INFINITY, f64::max);
        FarPixel { at, z, nearest: z.signum() * largest }
    };
    far.into_iter().map(nearest).collect()
}

/// A stored pixel as it lies centred on the device.
fn centred_pixel(bank: &Bank<'_>, index: usize) -> f64 {
    match bank.pixels() {
        Pixels::U8(pixels) => f64::from(pixels[index]) - 128.0,
        Pixels::F32(pixels) => f64::from(pixels[index] - bank.range().centre as f32),
    }
}

/// Per window what its energies leave out.
pub(super) fn constants(components: &Components, far: &[FarPixel]) -> Vec<f64> {
    let mut of_pixels = vec![0.0; components.height() * components.width()];
    let plane = of_pixels.len();
    for pixel in far {
        of_pixels[pixel.at % plane] += (pixel.nearest - pixel.z).powi(2);
    }
    components.sums(&of_pixels)
}

/// What energies are counted from at far values, `[probe][channel][row][column]`, for the queries of a batch; none where no
/// value is far.
pub(super) struct FarValues(Option<Memory>);

impl FarValues {
    pub(super) fn new(bank: &DeviceBank, stream: &Stream, far: &[&[FarPixel]], flips: bool) -> Result<Self> {
        if far.iter().all(|far| far.is_empty()) {
            return Ok(Self(None));
        }
        let (len, width) = (bank.image_len(), bank.width());
        let mut values = vec![0.0; far.len() * len * if flips { 2 } else { 1 }];
        let (plain, flipped) = values.split_at_mut(far.len() * len);
        for (query, far) in far.iter().enumerate() {
            for pixel in *far {
                plain[query * len + pixel.at] = pixel.nearest;
                if flips {
                    let mirrored = pixel.at - pixel.at % width + width - 1 - pixel.at % width;
                    flipped[query * len + mirrored] = pixel.nearest;
                }
            }
        }
        Ok(Self(Some(Memory::copy_of(stream, &values, "values far from the data")?)))
    }

    /// Bytes of device memory per query, at most.
    pub(super) fn bytes_per_query(bank: &DeviceBank) -> usize {
        2 * 8 * bank.image_len()
    }

    /// Where they are on the device; null for none.
    pub(super) fn address(&self) -> Address {
        self.0.as_ref().map_or(0, Memory::address)
    }
}
