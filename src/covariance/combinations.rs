//! `Combinations`: what is measured on an image of bytes.

use crate::error::{Error, Result};

/// What sums of two bytes are taken less, so that no value is larger in magnitude.
pub(super) const CENTRE: i16 = 256;

/// What is measured on an image of bytes u, one number for each pair of positions: `u[left] + u[right]`, or their difference.
#[derive(Debug, Clone, Copy)]
pub struct Combinations<'a> {
    /// Positions in an image.
    pub left: &'a [u32],
    /// As many positions.
    pub right: &'a [u32],
    /// Whether the difference is meant; the mean of a difference counts as 0, as it is with the mirrored images.
    pub is_difference: bool,
}

impl Combinations<'_> {
    /// Refuses positions that images of `image_len` bytes do not have.
    pub(super) fn check(&self, image_len: usize) -> Result<()> {
        let expected = |expected: String| Error::Shape {
            what: "the combinations",
            found: vec![self.left.len(), self.right.len()],
            expected,
        };
        if self.left.is_empty() || self.left.len() != self.right.len() {
            return Err(expected("as many left as right positions, at least one".to_owned()));
        }
        if self.left.iter().chain(self.right).any(|&at| at as usize >= image_len) {
            return Err(expected(format!("positions below {image_len}")));
        }
        Ok(())
    }

    /// The values of an image. Sums are taken less [`CENTRE`]; covariances do not see it.
    #[inline(always)]
    pub(super) fn write(&self, image: &[u8], values: &mut [i16]) {
        let (sign, less) = if self.is_difference { (-1, 0) } else { (1, CENTRE) };
        for (value, (&left, &right)) in values.iter_mut().zip(self.left.iter().zip(self.right)) {
            *value = i16::from(image[left as usize]) + sign * i16::from(image[right as usize]) - less;
        }
    }
}
