//! `Bank`: the training images as the engine reads them, borrowed in place, never copied.

use ndarray::ArrayView4;

use crate::error::{Error, Result};

/// Largest magnitude of a float pixel: keeps every squared distance within `f32`.
pub const MAX_PIXEL: f64 = 1e6;

/// Largest magnitude of a log prior, in nats: keeps every logit within the integers of `f32`.
pub const MAX_LOG_PRIOR: f64 = 1e6;

/// Most images of a data set: the lists of candidates count them in 32 bits, one of which says whether they are flipped.
pub const MAX_IMAGES: usize = 1 << 31;

/// Pixels of all images, `[image, channel, row, column]`, contiguous.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// Bytes `u`, meaning `u / 127.5 - 1`.
    U8(&'a [u8]),
    /// Floats that are the pixel values themselves.
    F32(&'a [f32]),
}

/// Where the pixels of images lie, in the units of the images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelRange {
    /// What is taken off every pixel before it is computed with.
    pub centre: f64,
    /// The largest distance of a pixel from the centre. Sigma is called large or small relative to it.
    pub reach: f64,
}

impl PixelRange {
    /// Of bytes, which mean -1 to 1.
    const BYTES: Self = Self { centre: 0.0, reach: 1.0 };

    /// Of floats from `least` to `most`. The centre is the middle where every pixel less it is exact in `f32`, which
    /// it is for data far from zero (Sterbenz: between half the centre and twice); there the digits would otherwise
    /// go to what all pixels have in common. Elsewhere it is zero.
    #[must_use]
    pub fn of_floats(least: f32, most: f32) -> Self {
        let middle = (0.5 * (f64::from(least) + f64::from(most))) as f32;
        let is_far =
            |edge: f32| edge * middle > 0.0 && edge.abs() >= 0.5 * middle.abs() && edge.abs() <= 2.0 * middle.abs();
        let centre = if is_far(least) && is_far(most) { middle } else { 0.0 };
        let reach = (most - centre).abs().max((least - centre).abs());
        Self { centre: f64::from(centre), reach: f64::from(reach) }
    }
}

/// The training images: a borrowed pixel buffer and its shape.
#[derive(Debug, Clone, Copy)]
pub struct Bank<'a> {
    pixels: Pixels<'a>,
    shape: [usize; 4],
    range: PixelRange,
    log_prior: Option<&'a [f64]>,
}

impl<'a> Bank<'a> {
    /// A bank of byte images `[n, channels, height, width]`.
    pub fn from_u8(images: ArrayView4<'a, u8>) -> Result<Self> {
        let (shape, pixels) = contiguous(&images)?;
        Ok(Self { pixels: Pixels::U8(pixels), shape, range: PixelRange::BYTES, log_prior: None })
    }

    /// A bank of float images `[n, channels, height, width]`; every pixel is checked to be finite and at most
    /// [`MAX_PIXEL`] in magnitude.
    pub fn from_f32(images: ArrayView4<'a, f32>) -> Result<Self> {
        let mut bank = Self::from_checked_f32(images, PixelRange::BYTES)?;
        let is_wrong = |value: f32| !value.is_finite() || f64::from(value.abs()) > MAX_PIXEL;
        if images.iter().any(|&value| is_wrong(value))
            && let Some(((n, c, y, x), &value)) = images.indexed_iter().find(|&(_, &value)| is_wrong(value))
        {
            let index = vec![n, c, y, x];
            return Err(Error::Pixel { what: "the data set", value: f64::from(value), index, limit: MAX_PIXEL });
        }
        let (least, most) = images.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        bank.range = PixelRange::of_floats(least, most);
        Ok(bank)
    }

    /// Like [`Bank::from_f32`] for images that were checked before, with the [`Bank::range`] of that check.
    pub fn from_checked_f32(images: ArrayView4<'a, f32>, range: PixelRange) -> Result<Self> {
        let (shape, pixels) = contiguous(&images)?;
        Ok(Self { pixels: Pixels::F32(pixels), shape, range, log_prior: None })
    }

    /// The same bank with a log prior weight for each image, in nats; without one all weigh the same. They need not be
    /// normalised. Each is checked to be finite and at most [`MAX_LOG_PRIOR`] in magnitude.
    pub fn with_log_prior(self, log_prior: &'a [f64]) -> Result<Self> {
        if log_prior.len() != self.len() {
            let expected = format!("[{}], one number per image", self.len());
            return Err(Error::Shape { what: "log_prior", found: vec![log_prior.len()], expected });
        }
        match log_prior.iter().position(|value| !value.is_finite() || value.abs() > MAX_LOG_PRIOR) {
            Some(index) => Err(Error::LogPrior { index, value: log_prior[index], limit: MAX_LOG_PRIOR }),
            None => Ok(Self { log_prior: Some(log_prior), ..self }),
        }
    }

    /// The log prior weight of every image, in nats, if there is one.
    #[must_use]
    pub fn log_prior(&self) -> Option<&'a [f64]> {
        self.log_prior
    }

    /// Where the pixels lie, in the units of the images.
    #[must_use]
    pub fn range(&self) -> PixelRange {
        self.range
    }

    /// The largest distance of a pixel from the centre, see [`PixelRange`].
    #[must_use]
    pub fn reach(&self) -> f64 {
        self.range.reach
    }

    /// The pixel buffer.
    #[must_use]
    pub fn pixels(&self) -> Pixels<'a> {
        self.pixels
    }

    /// Number of images, flips not counted.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a bank is never empty")]
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// `[channels, height, width]` of an image.
    #[must_use]
    pub fn image_shape(&self) -> [usize; 3] {
        [self.shape[1], self.shape[2], self.shape[3]]
    }

    /// Number of values in one image.
    #[must_use]
    pub fn image_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Stored units per unit of the images: a byte `u` means `(u - 127.5) / 127.5`.
    #[must_use]
    pub fn unit(&self) -> f64 {
        match self.pixels {
            Pixels::U8(_) => 127.5,
            Pixels::F32(_) => 1.0,
        }
    }

    /// What is taken off every stored pixel before it is computed with.
    #[must_use]
    pub fn stored_centre(&self) -> f32 {
        match self.pixels {
            Pixels::U8(_) => 127.5,
            Pixels::F32(_) => self.range.centre as f32,
        }
    }
}

fn contiguous<'a, P>(images: &ArrayView4<'a, P>) -> Result<([usize; 4], &'a [P])> {
    let (n, c, h, w) = images.dim();
    if n > MAX_IMAGES {
        let expected = format!("at most {MAX_IMAGES} images");
        return Err(Error::Shape { what: "the data set", found: vec![n, c, h, w], expected });
    }
    if n * c * h * w == 0 {
        return Err(Error::Empty { shape: vec![n, c, h, w] });
    }
    let pixels = images.to_slice().ok_or_else(|| Error::Shape {
        what: "the data set",
        found: vec![n, c, h, w],
        expected: "a C-contiguous array".to_owned(),
    })?;
    Ok(([n, c, h, w], pixels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;

    #[test]
    fn an_empty_axis_is_refused() {
        let images = Array4::<u8>::zeros((3, 1, 0, 4));
        assert_eq!(Bank::from_u8(images.view()).unwrap_err(), Error::Empty { shape: vec![3, 1, 0, 4] });
    }

    #[test]
    fn a_bad_pixel_is_named() {
        let mut images = Array4::<f32>::zeros((2, 1, 2, 2));
        images[[1, 0, 1, 0]] = f32::INFINITY;
        assert!(matches!(Bank::from_f32(images.view()), Err(Error::Pixel { index, .. }) if index == [1, 0, 1, 0]));
        images[[1, 0, 1, 0]] = 2e6;
        assert!(matches!(Bank::from_f32(images.view()), Err(Error::Pixel { index, .. }) if index == [1, 0, 1, 0]));
    }

    #[test]
    fn data_far_from_zero_have_a_centre_and_lose_no_digit() {
        let range = |least: f32, most: f32| {
            let images = Array4::from_shape_vec((1, 1, 1, 2), vec![least, most]).unwrap();
            Bank::from_f32(images.view()).unwrap().range()
        };
        assert_eq!(range(-1.0, 1.0), PixelRange { centre: 0.0, reach: 1.0 });
        assert_eq!(range(0.0, 1.0), PixelRange { centre: 0.0, reach: 1.0 });
        assert_eq!(range(99.0, 101.0), PixelRange { centre: 100.0, reach: 1.0 });
        assert_eq!(range(-101.0, -99.0), PixelRange { centre: -100.0, reach: 1.0 });
        assert_eq!(range(3.0, 3.0), PixelRange { centre: 3.0, reach: 0.0 });
        for (least, most) in [(0.7_f32, 1.3), (100.0, 101.7), (-5.0, -2.4), (0.1, 0.3)] {
            let PixelRange { centre, .. } = range(least, most);
            for step in 0..1000_u16 {
                let pixel = least + (most - least) * f32::from(step) / 1000.0;
                assert_eq!(f64::from(pixel - centre as f32), f64::from(pixel) - centre, "{pixel} less {centre}");
            }
        }
    }

    #[test]
    fn a_transposed_view_is_refused() {
        let images = Array4::<u8>::zeros((2, 3, 4, 5));
        assert!(matches!(Bank::from_u8(images.view().reversed_axes()), Err(Error::Shape { .. })));
    }
}
