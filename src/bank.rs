//! `Bank`: the training images as the engine reads them, borrowed in place, never copied.

use ndarray::ArrayView4;

use crate::error::{Error, Result};

/// Largest magnitude of a float pixel: keeps every squared distance within `f32`.
pub const MAX_PIXEL: f64 = 1e6;

/// Pixels of all images, `[image, channel, row, column]`, contiguous.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// Bytes `u`, meaning `u / 127.5 - 1`.
    U8(&'a [u8]),
    /// Floats that are the pixel values themselves.
    F32(&'a [f32]),
}

/// The training images: a borrowed pixel buffer and its shape.
#[derive(Debug, Clone, Copy)]
pub struct Bank<'a> {
    pixels: Pixels<'a>,
    shape: [usize; 4],
    max_abs: f64,
}

impl<'a> Bank<'a> {
    /// A bank of byte images `[n, channels, height, width]`.
    pub fn from_u8(images: ArrayView4<'a, u8>) -> Result<Self> {
        let (shape, pixels) = contiguous(&images)?;
        Ok(Self { pixels: Pixels::U8(pixels), shape, max_abs: 1.0 })
    }

    /// A bank of float images `[n, channels, height, width]`; every pixel is checked to be finite and at most
    /// [`MAX_PIXEL`] in magnitude.
    pub fn from_f32(images: ArrayView4<'a, f32>) -> Result<Self> {
        let mut bank = Self::from_checked_f32(images, 0.0)?;
        let is_wrong = |value: f32| !value.is_finite() || f64::from(value.abs()) > MAX_PIXEL;
        if images.iter().any(|&value| is_wrong(value))
            && let Some(((n, c, y, x), &value)) = images.indexed_iter().find(|&(_, &value)| is_wrong(value))
        {
            let index = vec![n, c, y, x];
            return Err(Error::Pixel { what: "the data set", value: f64::from(value), index, limit: MAX_PIXEL });
        }
        bank.max_abs = f64::from(images.iter().fold(0.0, |max: f32, value| max.max(value.abs())));
        Ok(bank)
    }

    /// Like [`Bank::from_f32`] for images that were checked before, with the [`Bank::max_abs`] of that check.
    pub fn from_checked_f32(images: ArrayView4<'a, f32>, max_abs: f64) -> Result<Self> {
        let (shape, pixels) = contiguous(&images)?;
        Ok(Self { pixels: Pixels::F32(pixels), shape, max_abs })
    }

    /// Largest magnitude of a pixel in the units of the images. Sigma is called large or small relative to it.
    #[must_use]
    pub fn max_abs(&self) -> f64 {
        self.max_abs
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

    /// `(centre, unit)` of the stored pixels: a stored `u` means `(u - centre) / unit`.
    #[must_use]
    pub fn scale(&self) -> (f64, f64) {
        match self.pixels {
            Pixels::U8(_) => (127.5, 127.5),
            Pixels::F32(_) => (0.0, 1.0),
        }
    }
}

fn contiguous<'a, P>(images: &ArrayView4<'a, P>) -> Result<([usize; 4], &'a [P])> {
    let (n, c, h, w) = images.dim();
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
    fn a_transposed_view_is_refused() {
        let images = Array4::<u8>::zeros((2, 3, 4, 5));
        assert!(matches!(Bank::from_u8(images.view().reversed_axes()), Err(Error::Shape { .. })));
    }
}
