//! `MaskRuns`: masks cut into horizontal runs, and runs into pieces of a power of two, whose sums are read from doubling
//! tables.
//!
//! Table `j` holds at position `p` the sum of the `2^j` values that start at `p`; table 0 is the plane itself. A run of 13
//! pixels then takes three reads (8 + 4 + 1) instead of thirteen, and no subtraction.

use ndarray::ArrayView3;

use crate::error::{Error, Result};

/// `2^level` consecutive pixels of a row, the first at flat position `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Log2 of the number of pixels.
    pub level: u32,
    /// Flat position of the first pixel.
    pub at: u32,
    /// Its position in the tables, which lie one after the other.
    pub place: u32,
}

/// The pieces of every mask.
#[derive(Debug, Clone)]
pub struct MaskRuns {
    pieces: Vec<Piece>,
    /// `pieces[starts[k]..starts[k + 1]]` belong to mask `k`.
    starts: Vec<usize>,
    levels: u32,
    /// Pixels of an image.
    plane: usize,
}

impl MaskRuns {
    /// Cuts masks of `[components, height, width]`; an empty mask is an error.
    pub fn new(masks: ArrayView3<'_, bool>) -> Result<Self> {
        let (_, height, width) = masks.dim();
        let mut runs = Self { pieces: Vec::new(), starts: vec![0], levels: 1, plane: height * width };
        for (index, mask) in masks.outer_iter().enumerate() {
            for (y, row) in mask.outer_iter().enumerate() {
                let mut x = 0;
                while x < width {
                    let len = (x..width).take_while(|&x| row[x]).count();
                    runs.push_run(y * width + x, len);
                    x += len + 1;
                }
            }
            if runs.pieces.len() == runs.starts[index] {
                return Err(Error::EmptyMask { index });
            }
            runs.starts.push(runs.pieces.len());
        }
        Ok(runs)
    }

    fn push_run(&mut self, mut at: usize, mut len: usize) {
        while len > 0 {
            let level = len.ilog2();
            self.levels = self.levels.max(level + 1);
            self.pieces.push(piece(level, at, self.plane));
            at += 1 << level;
            len -= 1 << level;
        }
    }

    /// Number of masks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of doubling tables the pieces refer to.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels as usize
    }

    /// The pieces of mask `k`.
    #[must_use]
    pub fn pieces(&self, k: usize) -> &[Piece] {
        &self.pieces[self.starts[k]..self.starts[k + 1]]
    }

    /// How many masks select each of the image's pixels.
    #[must_use]
    pub fn cover(&self, pixels: usize) -> Vec<u32> {
        let mut cover = vec![0; pixels];
        for piece in &self.pieces {
            let at = piece.at as usize;
            cover[at..at + (1 << piece.level)].iter_mut().for_each(|c| *c += 1);
        }
        cover
    }

    /// The masks flipped left to right, in the same order.
    #[must_use]
    pub fn mirrored(&self, width: usize) -> Self {
        let flip = |piece: &Piece| {
            let (y, x) = (piece.at as usize / width, piece.at as usize % width);
            self::piece(piece.level, y * width + width - x - (1 << piece.level), self.plane)
        };
        Self { pieces: self.pieces.iter().map(flip).collect(), starts: self.starts.clone(), ..*self }
    }
}

fn piece(level: u32, at: usize, plane: usize) -> Piece {
    Piece { level, at: at as u32, place: (level as usize * plane + at) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use proptest::prelude::*;

    fn paint(runs: &MaskRuns, k: usize, pixels: usize) -> Vec<u32> {
        let mut plane = vec![0; pixels];
        for piece in runs.pieces(k) {
            let at = piece.at as usize;
            plane[at..at + (1 << piece.level)].iter_mut().for_each(|p| *p += 1);
        }
        plane
    }

    proptest! {
        #[test]
        fn pieces_paint_the_mask_once_and_mirrored_its_flip(
            (height, width, bits) in (1_usize..7, 1_usize..20).prop_flat_map(|(h, w)| {
                (Just(h), Just(w), proptest::collection::vec(any::<bool>(), h * w))
            })
        ) {
            prop_assume!(bits.contains(&true));
            let masks = Array3::from_shape_vec((1, height, width), bits).expect("sized");
            let runs = MaskRuns::new(masks.view()).expect("not empty");
            let expected: Vec<u32> = masks.iter().map(|&b| u32::from(b)).collect();
            prop_assert_eq!(paint(&runs, 0, height * width), expected);
            let flipped: Vec<u32> = masks.slice(ndarray::s![.., .., ..;-1]).iter().map(|&b| u32::from(b)).collect();
            prop_assert_eq!(paint(&runs.mirrored(width), 0, height * width), flipped);
        }
    }
}
