//! `Components`: the components of a composite. Component `k` compares and returns the pixels of window `k`.

use std::ops::Range;
#[cfg(feature = "cuda")]
use std::sync::Weak;
use std::sync::{Arc, OnceLock};

use ndarray::ArrayView3;

use crate::bank::Bank;
use crate::error::{Error, Result};
use crate::runs::MaskRuns;

/// The set of windows of one composite, for images of one size; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Components(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    height: usize,
    width: usize,
    kind: Kind,
    /// The windows of the image flipped left to right, once somebody has asked for them.
    mirrored: OnceLock<Components>,
}

/// Components that may have been dropped: what caches of device copies hold.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone)]
pub(crate) struct WeakComponents(Weak<Inner>);

#[cfg(feature = "cuda")]
impl WeakComponents {
    /// Whether this refers to the same `components`, not to equal ones.
    pub(crate) fn is(&self, components: &Components) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&components.0))
    }

    /// Whether anybody still holds them.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// What the windows are.
#[derive(Debug, Clone)]
pub enum Kind {
    /// One window: the whole image (the empirical denoiser).
    Full,
    /// Every `side` x `side` window that fits, row by row.
    Square {
        /// Side of the windows.
        side: usize,
    },
    /// Arbitrary masks, one per component.
    Masks(MaskRuns),
}

impl Components {
    fn new(height: usize, width: usize, kind: Kind) -> Self {
        Self(Arc::new(Inner { height, width, kind, mirrored: OnceLock::new() }))
    }

    /// The whole image as the only window.
    pub fn full(height: usize, width: usize) -> Result<Self> {
        check_image(height, width)?;
        Ok(Self::new(height, width, Kind::Full))
    }

    /// All `side` x `side` windows that fit into the image, no padding. A window as large as the image is
    /// [`Components::full`].
    pub fn square(height: usize, width: usize, side: usize) -> Result<Self> {
        check_image(height, width)?;
        let largest = height.min(width);
        if side == 0 || side > largest {
            return Err(Error::WindowSide { side, largest, height, width });
        }
        if side == height && side == width {
            return Self::full(height, width);
        }
        Ok(Self::new(height, width, Kind::Square { side }))
    }

    /// One window per mask of `[components, height, width]`; every pixel must belong to at least one mask.
    pub fn masks(masks: ArrayView3<'_, bool>) -> Result<Self> {
        let (count, height, width) = masks.dim();
        check_image(height, width)?;
        if count == 0 {
            return Err(Error::Empty { shape: vec![count, height, width] });
        }
        let runs = MaskRuns::new(masks)?;
        let windows = Self::new(height, width, Kind::Masks(runs));
        let cover = windows.cover();
        let mut bare = (0..cover.len()).filter(|&p| cover[p] == 0);
        if let Some(first) = bare.next() {
            return Err(Error::Uncovered { count: 1 + bare.count(), y: first / width, x: first % width });
        }
        Ok(windows)
    }

    /// Image height.
    #[must_use]
    pub fn height(&self) -> usize {
        self.0.height
    }

    /// Image width.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.width
    }

    /// What the windows are.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Number of windows.
    #[must_use]
    pub fn count(&self) -> usize {
        let (rows, columns) = self.grid();
        rows * columns
    }

    /// Components as a grid of rows and columns; masks are one row each, so that rows can be tested and skipped one by one.
    #[must_use]
    pub fn grid(&self) -> (usize, usize) {
        match self.kind() {
            Kind::Full => (1, 1),
            Kind::Square { side } => (self.height() - side + 1, self.width() - side + 1),
            Kind::Masks(runs) => (runs.count(), 1),
        }
    }

    /// The pixels of window `k`, as runs of flat positions within rows.
    pub fn runs(&self, k: usize) -> impl Iterator<Item = Range<usize>> {
        let (count, first, step, len) = match self.kind() {
            Kind::Full => (1, 0, 0, self.height() * self.width()),
            Kind::Square { side } => {
                let (_, columns) = self.grid();
                (*side, k / columns * self.width() + k % columns, self.width(), *side)
            }
            Kind::Masks(_) => (0, 0, 0, 0),
        };
        let pieces = match self.kind() {
            Kind::Masks(runs) => runs.pieces(k),
            Kind::Full | Kind::Square { .. } => &[],
        };
        let pieces = pieces.iter().map(|piece| piece.at as usize..piece.at as usize + (1 << piece.level));
        (0..count).map(move |i| first + i * step..first + i * step + len).chain(pieces)
    }

    /// Number of pixels of window `k`.
    #[must_use]
    pub fn pixels(&self, k: usize) -> usize {
        self.runs(k).map(|run| run.len()).sum()
    }

    /// The flat position of the middle pixel of window `k`: that in the middle of its bounding box, the later one of two; or
    /// the nearest one to it that a mask holds, the first of several.
    #[must_use]
    pub fn middle(&self, k: usize) -> usize {
        let width = self.width();
        match self.kind() {
            Kind::Full => self.height() / 2 * width + width / 2,
            Kind::Square { side } => {
                let (_, columns) = self.grid();
                (k / columns + side / 2) * width + k % columns + side / 2
            }
            Kind::Masks(_) => {
                let pixels = || self.runs(k).flatten();
                let middle_of = |axis: fn(usize, usize) -> usize| {
                    let (low, high) = pixels()
                        .fold((usize::MAX, 0), |(low, high), p| (low.min(axis(p, width)), high.max(axis(p, width))));
                    (low + high).div_ceil(2)
                };
                let (y, x) = (middle_of(|p, width| p / width), middle_of(|p, width| p % width));
                let distance = |&p: &usize| (p / width).abs_diff(y).pow(2) + (p % width).abs_diff(x).pow(2);
                pixels().min_by_key(distance).unwrap_or(0)
            }
        }
    }

    /// How many windows cover each pixel, `[height * width]`; never zero.
    #[must_use]
    pub fn cover(&self) -> Vec<u32> {
        match self.kind() {
            Kind::Full => vec![1; self.height() * self.width()],
            Kind::Square { side } => {
                let (down, across) = (line_cover(self.height(), *side), line_cover(self.width(), *side));
                down.iter().flat_map(|&d| across.iter().map(move |&a| d * a)).collect()
            }
            Kind::Masks(runs) => runs.cover(self.height() * self.width()),
        }
    }

    /// The sum of `values` `[pixel]` on every window.
    #[must_use]
    pub fn sums(&self, values: &[f64]) -> Vec<f64> {
        let Kind::Square { side } = self.kind() else {
            return (0..self.count()).map(|k| self.runs(k).flat_map(|run| &values[run]).sum()).collect();
        };
        let ((rows, columns), width) = (self.grid(), self.width());
        let across: Vec<f64> = values
            .chunks_exact(width)
            .flat_map(|row| row.windows(*side).map(|window| window.iter().sum::<f64>()))
            .collect();
        let down = |k: usize| (0..*side).map(|y| across[(k / columns + y) * columns + k % columns]).sum();
        (0..rows * columns).map(down).collect()
    }

    /// The mean of numbers of the windows at every pixel.
    #[must_use]
    pub fn means_at_pixels(&self, of_windows: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.height() * self.width()];
        for (k, number) in of_windows.iter().enumerate() {
            self.runs(k).flatten().for_each(|p| sums[p] += number);
        }
        sums.iter().zip(self.cover()).map(|(sum, cover)| sum / f64::from(cover)).collect()
    }

    /// The windows of the image flipped left to right. Window `k` flipped is window [`Components::mirror_index`] of the
    /// result.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        match self.kind() {
            Kind::Full | Kind::Square { .. } => self.clone(),
            Kind::Masks(runs) => {
                let mirrored = || Self::new(self.height(), self.width(), Kind::Masks(runs.mirrored(self.width())));
                self.0.mirrored.get_or_init(mirrored).clone()
            }
        }
    }

    /// Refuses a bank whose images have another size.
    pub(crate) fn check_image(&self, bank: &Bank<'_>) -> Result<()> {
        let [_, height, width] = bank.image_shape();
        if (self.height(), self.width()) == (height, width) {
            return Ok(());
        }
        let found = vec![self.height(), self.width()];
        Err(Error::Shape { what: "the windows' image", found, expected: format!("[{height}, {width}]") })
    }

    /// A reference that does not keep these components alive.
    #[cfg(feature = "cuda")]
    pub(crate) fn downgrade(&self) -> WeakComponents {
        WeakComponents(Arc::downgrade(&self.0))
    }

    /// Position of window `k`'s mirror image in [`Components::mirrored`].
    #[must_use]
    pub fn mirror_index(&self, k: usize) -> usize {
        match self.kind() {
            Kind::Square { .. } => {
                let (_, columns) = self.grid();
                k - k % columns + (columns - 1 - k % columns)
            }
            Kind::Full | Kind::Masks(_) => k,
        }
    }
}

/// How many of the windows of `side` positions cover each of `len` positions.
fn line_cover(len: usize, side: usize) -> Vec<u32> {
    (0..len).map(|p| (p.min(len - side) + 1 - (p + 1).saturating_sub(side)) as u32).collect()
}

fn check_image(height: usize, width: usize) -> Result<()> {
    // Positions in the tables of the mask kernels are 32-bit.
    const LARGEST: usize = 1 << 24;
    if height == 0 || width == 0 || height.saturating_mul(width) > LARGEST {
        return Err(Error::Shape {
            what: "the image",
            found: vec![height, width],
            expected: format!("height and width of at least 1 and at most {LARGEST} pixels"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use proptest::prelude::*;

    fn brute_cover(height: usize, width: usize, side: usize) -> Vec<u32> {
        let mut cover = vec![0; height * width];
        for (top, left) in (0..=height - side).flat_map(|t| (0..=width - side).map(move |l| (t, l))) {
            for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                cover[(top + y) * width + left + x] += 1;
            }
        }
        cover
    }

    proptest! {
        #[test]
        fn cover_counts_the_windows_of_each_pixel(height in 1_usize..12, width in 1_usize..12, side in 1_usize..12) {
            prop_assume!(side <= height.min(width));
            let windows = Components::square(height, width, side).expect("fits");
            prop_assert_eq!(windows.cover(), brute_cover(height, width, side));
        }

        #[test]
        fn runs_paint_the_windows(height in 1_usize..9, width in 1_usize..9, side in 1_usize..9) {
            prop_assume!(side <= height.min(width));
            for windows in [Components::square(height, width, side).unwrap(), Components::full(height, width).unwrap()] {
                let mut painted = vec![0; height * width];
                for p in (0..windows.count()).flat_map(|k| windows.runs(k)).flatten() {
                    painted[p] += 1;
                }
                prop_assert_eq!(painted, windows.cover());
            }
        }

        #[test]
        fn mirroring_twice_is_the_identity(height in 1_usize..9, width in 1_usize..9, side in 1_usize..9) {
            prop_assume!(side <= height.min(width));
            let windows = Components::square(height, width, side).expect("fits");
            for k in 0..windows.count() {
                prop_assert_eq!(windows.mirror_index(windows.mirror_index(k)), k);
            }
        }
    }

    #[test]
    fn oversized_and_zero_sides_are_refused() {
        for side in [0, 6, 33] {
            assert!(matches!(Components::square(5, 7, side), Err(Error::WindowSide { largest: 5, .. })));
        }
    }

    #[test]
    fn uncovered_pixels_and_empty_masks_are_refused() {
        let mut masks = Array3::from_elem((2, 2, 3), true);
        masks.slice_mut(ndarray::s![.., 1, 1..]).fill(false);
        assert_eq!(Components::masks(masks.view()).unwrap_err(), Error::Uncovered { count: 2, y: 1, x: 1 });
        masks.slice_mut(ndarray::s![1, .., ..]).fill(false);
        assert_eq!(Components::masks(masks.view()).unwrap_err(), Error::EmptyMask { index: 1 });
    }
}
