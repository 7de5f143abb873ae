//! `Queries`: noisy images and their noise levels, checked once for every engine.

use ndarray::{Array3, Array4, ArrayView4, s};

use crate::atoms::Atoms;
use crate::bank::Bank;
use crate::error::{Error, Result};

/// Smallest noise level: together with [`MAX_SIGMA`] it keeps every intermediate number within `f32`.
pub const MIN_SIGMA: f64 = 1e-6;

/// Largest noise level.
pub const MAX_SIGMA: f64 = 1e9;

/// Largest magnitude of a noisy pixel.
pub const MAX_Z: f64 = 1e9;

/// Noisy images `[batch, channels, height, width]` in either precision, borrowed.
#[derive(Debug, Clone, Copy)]
pub enum NoisyImages<'a> {
    /// In float32.
    F32(ArrayView4<'a, f32>),
    /// In float64; rounded once, after conversion to the units of stored pixels.
    F64(ArrayView4<'a, f64>),
}

impl<'a> From<ArrayView4<'a, f32>> for NoisyImages<'a> {
    fn from(z: ArrayView4<'a, f32>) -> Self {
        Self::F32(z)
    }
}

impl<'a> From<ArrayView4<'a, f64>> for NoisyImages<'a> {
    fn from(z: ArrayView4<'a, f64>) -> Self {
        Self::F64(z)
    }
}

impl NoisyImages<'_> {
    /// `[batch, channels, height, width]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        let (batch, channels, height, width) = match self {
            Self::F32(z) => z.dim(),
            Self::F64(z) => z.dim(),
        };
        [batch, channels, height, width]
    }
}

/// Every image counts for every query.
static ALL: Atoms = Atoms::all();

/// Noisy images that fit a bank, with one noise level per image, all within the allowed range.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    z: NoisyImages<'a>,
    sigma: &'a [f64],
    atoms: &'a Atoms,
}

impl<'a> Queries<'a> {
    /// Checks `z` `[batch, channels, height, width]`, in [-1, 1] units for byte banks, and one `sigma` per image.
    ///
    /// Errors: the shape is not the bank's, the number of noise levels is not the number of images, a noise level lies
    /// outside [`MIN_SIGMA`] .. [`MAX_SIGMA`], or a pixel is not finite or beyond [`MAX_Z`].
    pub fn new(bank: &Bank<'_>, z: impl Into<NoisyImages<'a>>, sigma: &'a [f64]) -> Result<Self> {
        let z = z.into();
        let [batch, image @ ..] = z.shape();
        if image != bank.image_shape() {
            let [channels, height, width] = bank.image_shape();
            let expected = format!("[batch, {channels}, {height}, {width}], as the images of the data set");
            return Err(Error::Shape { what: "z", found: z.shape().to_vec(), expected });
        }
        check_sigma(sigma, batch)?;
        match z {
            NoisyImages::F32(z) => check_pixels(&z)?,
            NoisyImages::F64(z) => check_pixels(&z)?,
        }
        Ok(Self { z, sigma, atoms: &ALL })
    }

    /// The same queries among some of the images only.
    #[must_use]
    pub fn among(self, atoms: &'a Atoms) -> Self {
        Self { atoms, ..self }
    }

    /// Which images count.
    #[must_use]
    pub fn atoms(&self) -> &'a Atoms {
        self.atoms
    }

    /// Number of queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sigma.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sigma.is_empty()
    }

    /// The noisy images.
    #[must_use]
    pub fn z(&self) -> NoisyImages<'a> {
        self.z
    }

    /// One noise level per query.
    #[must_use]
    pub fn sigma(&self) -> &'a [f64] {
        self.sigma
    }

    /// The noisy images in float64, `[batch, channels, height, width]`.
    pub(crate) fn images(&self) -> Array4<f64> {
        match self.z {
            NoisyImages::F32(z) => z.mapv(f64::from),
            NoisyImages::F64(z) => z.to_owned(),
        }
    }

    /// The noisy image of one query, `[channels, height, width]`.
    #[must_use]
    pub fn image(&self, query: usize) -> Array3<f64> {
        match self.z {
            NoisyImages::F32(z) => z.slice(s![query, .., .., ..]).mapv(f64::from),
            NoisyImages::F64(z) => z.slice(s![query, .., .., ..]).to_owned(),
        }
    }
}

/// An error unless there are `batch` noise levels, all of them in range.
pub fn check_sigma(sigma: &[f64], batch: usize) -> Result<()> {
    if sigma.len() != batch {
        let expected = format!("[{batch}], one sigma per query");
        return Err(Error::Shape { what: "sigma", found: vec![sigma.len()], expected });
    }
    match sigma.iter().find(|sigma| !(MIN_SIGMA..=MAX_SIGMA).contains(*sigma)) {
        Some(&value) => Err(Error::Sigma { value, min: MIN_SIGMA, max: MAX_SIGMA }),
        None => Ok(()),
    }
}

fn check_pixels<T: Copy + Into<f64>>(z: &ArrayView4<'_, T>) -> Result<()> {
    let is_wrong = |value: f64| !value.is_finite() || value.abs() > MAX_Z;
    if !z.iter().any(|&value| is_wrong(value.into())) {
        return Ok(());
    }
    let wrong = z.indexed_iter().map(|(index, &value)| (index, value.into())).find(|&(_, value)| is_wrong(value));
    match wrong {
        Some(((q, c, y, x), value)) => Err(Error::Pixel { what: "z", value, index: vec![q, c, y, x], limit: MAX_Z }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let images = Array4::<u8>::zeros((2, 1, 2, 3));
        let bank = Bank::from_u8(images.view()).unwrap();
        let mut z = Array4::<f32>::zeros((2, 1, 2, 3));
        assert_eq!(Queries::new(&bank, z.view(), &[1.0, 2.0]).unwrap().len(), 2);
        assert!(matches!(Queries::new(&bank, z.view(), &[1.0]), Err(Error::Shape { what: "sigma", .. })));
        for value in [0.0, -1.0, f64::NAN, 9e-7, 2e9] {
            assert!(matches!(Queries::new(&bank, z.view(), &[1.0, value]), Err(Error::Sigma { .. })));
        }
        z[[1, 0, 0, 2]] = f32::NEG_INFINITY;
        let expected = "z holds -inf at [1, 0, 0, 2]; allowed are finite numbers of magnitude up to 1e9";
        assert_eq!(Queries::new(&bank, z.view(), &[1.0; 2]).unwrap_err().to_string(), expected);
        let z = Array4::<f64>::zeros((2, 1, 3, 2));
        assert!(matches!(Queries::new(&bank, z.view(), &[1.0; 2]), Err(Error::Shape { what: "z", .. })));
    }
}
